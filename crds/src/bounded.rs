//! Strings that carry their own bounds: what the schema says of them stands here once.
//!
//! Admission refuses what does not fit; a value that is read is taken as it is, so that an object that was
//! stored under older rules can still be read, and deleted.

/// Declares a string type with a maximal length and, where it has one, a pattern.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, max = $max:literal $(, min = $min:literal)? $(, pattern = $pattern:literal)? $(, values = $values:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                #[allow(unused_mut, clippy::allow_attributes, reason = "depends on which bounds the type has")]
                let mut schema = schemars::json_schema!({ "type": "string", "maxLength": $max });
                $( schema.insert("minLength".to_owned(), $min.into()); )?
                $( schema.insert("pattern".to_owned(), $pattern.into()); )?
                $( schema.insert("enum".to_owned(), $values.into()); )?
                schema
            }
        }
    };
}
pub(crate) use bounded;

bounded!(
    /// A word or a short line, at most 253 characters.
    Line, max = 253
);
bounded!(
    /// Some paragraphs, at most 4,096 characters.
    Prose, max = 4096
);
bounded!(
    /// A DNS label (RFC 1123), as names of namespaces, machines and volumes are.
    Label, max = 63, min = 1, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
);
bounded!(
    /// The name of a Kubernetes object (a DNS subdomain, RFC 1123).
    ObjectName, max = 253, min = 1, pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
);
bounded!(
    /// The UID of a Kubernetes object.
    Uid, max = 64, min = 1
);
bounded!(
    /// `namespace/name` of an object.
    Ref, max = 317, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
);
bounded!(
    /// What an item of a host plan is about: long enough for a mount, which names a dataset and a machine.
    ItemName, max = 512
);
bounded!(
    /// A login as the API server knows it: printable ASCII, since logins that only look alike are no persons of ours.
    Login, max = 253, min = 1, pattern = "^[!-~]+$"
);
bounded!(
    /// A SHA-256 digest: `sha256:` and 64 hex digits.
    Digest, max = 71, pattern = "^sha256:[0-9a-f]{64}$"
);
bounded!(
    /// A code that a site may choose: letters, digits, `.`, `-`, `_`, `:`, `/`.
    Code, max = 128, min = 1, pattern = "^[A-Za-z0-9][-A-Za-z0-9._:/+ ]*$"
);
bounded!(
    /// An absolute URL.
    Url, max = 2048, pattern = "^[a-z][a-z0-9+.-]*://[!-~]+$"
);
bounded!(
    /// A path inside a machine: absolute, without `..`, letters, digits, `.`, `-`, `_`.
    MountPath, max = 255, min = 2, pattern = "^(/[A-Za-z0-9_][-A-Za-z0-9_.]*)+$"
);
bounded!(
    /// A path below a root: relative, without `..` and without a leading `.`.
    SubPath, max = 1024, min = 1, pattern = "^[A-Za-z0-9_][-A-Za-z0-9_.]*(/[A-Za-z0-9_][-A-Za-z0-9_.]*)*$"
);
bounded!(
    /// An amount of memory or storage in bytes, with `Ki`, `Mi`, `Gi`, `Ti` if wanted.
    Bytes, max = 24, min = 1, pattern = "^[1-9][0-9]{0,14}(Ki|Mi|Gi|Ti)?$"
);
bounded!(
    /// An IPv4 range in CIDR notation.
    Cidr, max = 18, min = 9, pattern = "^([0-9]{1,3}\\.){3}[0-9]{1,3}/[0-9]{1,2}$"
);
bounded!(
    /// An ISO 8601 duration of years, months, weeks, days, hours, minutes: `P1Y`, `P90D`, `PT10M`.
    Period, max = 32, min = 3, pattern = "^P([0-9]+Y)?([0-9]+M)?([0-9]+W)?([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+S)?)?$"
);
bounded!(
    /// A MONDO disease term: `MONDO:` and seven digits.
    Mondo, max = 13, pattern = "^MONDO:[0-9]{7}$"
);
bounded!(
    /// A research organisation (ROR): `https://ror.org/` and nine characters.
    Ror, max = 25, pattern = "^https://ror\\.org/0[a-hj-km-np-tv-z0-9]{6}[0-9]{2}$"
);
bounded!(
    /// A person (ORCID): four groups of four digits, the last may end in X.
    Orcid, max = 19, pattern = "^[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]$"
);
bounded!(
    /// An SPDX licence expression or `LicenseRef-…`.
    Licence, max = 253, min = 1, pattern = "^[A-Za-z0-9][-A-Za-z0-9.+() ]*$"
);
bounded!(
    /// The id of a shard: the first 16 hex digits of the digest of its part of the manifest.
    ShardId, max = 16, pattern = "^[0-9a-f]{16}$"
);
bounded!(
    /// The name of a key at the key server.
    KeyName, max = 128, min = 1, pattern = "^[a-z0-9][-a-z0-9]*$"
);
bounded!(
    /// A data key, encrypted by the key server's transit engine. Useless without it, so it may be written down.
    WrappedKey, max = 512, min = 1, pattern = "^vault:v[0-9]+:[A-Za-z0-9+/=]+$"
);
bounded!(
    /// An Ed25519 signature: 64 bytes as base64.
    Signature, max = 88, min = 88, pattern = "^[A-Za-z0-9+/]{86}==$"
);
bounded!(
    /// What the tenant gives to its machine at the first boot, at most 16 KiB.
    UserText, max = 16384
);

impl Ror {
    /// Where every ROR id begins.
    pub const PREFIX: &'static str = "https://ror.org/";

    /// The nine characters that stand in labels and group names.
    pub fn short(&self) -> &str {
        self.as_str().strip_prefix(Self::PREFIX).unwrap_or(self.as_str())
    }

    /// From the nine characters.
    pub fn from_short(short: &str) -> Self {
        Self::from(format!("{}{short}", Self::PREFIX))
    }

    /// The group that a login of this organisation carries.
    pub fn group(&self) -> String {
        format!("dejima.dev/org/{}", self.short())
    }
}

impl Bytes {
    /// The number of bytes, or nothing where the text is no amount or does not fit into 63 bits.
    pub fn count(&self) -> Option<u64> {
        let text = self.as_str();
        let (digits, shift) = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)]
            .iter()
            .find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, *shift)))
            .unwrap_or((text, 0));
        let number: u64 = digits.parse().ok()?;
        number.checked_mul(1_u64 << shift).filter(|bytes| i64::try_from(*bytes).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_counted_in_powers_of_two_and_refused_when_they_do_not_fit() {
        assert_eq!(Bytes::from("128Gi").count(), Some(128 << 30));
        assert_eq!(Bytes::from("5").count(), Some(5));
        assert_eq!(Bytes::from("4096").count(), Some(4096));
        assert_eq!(Bytes::from("999999999999999Ti").count(), None);
        assert_eq!(Bytes::from("2TB").count(), None);
    }

    #[test]
    fn an_organisation_has_one_short_form_and_back() {
        let ror = Ror::from("https://ror.org/035t8zc32");
        assert_eq!(ror.short(), "035t8zc32");
        assert_eq!(Ror::from_short(ror.short()), ror);
        assert_eq!(ror.group(), "dejima.dev/org/035t8zc32");
    }
}
