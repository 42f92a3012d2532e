//! Strings that carry their own bounds: what the schema says of them stands here once.
//!
//! Admission refuses what does not fit; a value that is read is taken as it is, so that an object that was
//! stored under older rules can still be read, and deleted.

/// Declares a string type with a maximal length and, where it has one, a pattern. Where people write such strings, `words` say what was
/// expected: the API server shows them beside the pattern, which it checks even where something else is so wrong that no rule is asked.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, max = $max:literal $(, min = $min:literal)? $(, pattern = $pattern:literal)? $(, words = $words:literal)? $(, values = $values:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// A text of ours that fits: what is too long is cut, and what moves cursors is a space.
            pub fn cut(text: &str) -> Self {
                Self($crate::bounded::cut(text, $max))
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
                $( $crate::bounded::explain(&mut schema, $words); )?
                schema
            }
        }
    };
}
pub(crate) use bounded;

/// Says the pattern of a schema in words, by a rule that asks the same.
pub(crate) fn explain(schema: &mut schemars::Schema, words: &str) {
    let pattern = schema.get("pattern").and_then(serde_json::Value::as_str).unwrap_or_default();
    let rule = serde_json::json!([{ "rule": format!("self.matches(r'{pattern}')"), "message": words }]);
    schema.insert("x-kubernetes-validations".to_owned(), rule);
}

/// The text, or as much of it as has room, with a mark where it was cut; spaces for line breaks and the like.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let seen = text.chars().map(|sign| if sign.is_control() { ' ' } else { sign });
    if text.chars().count() <= most {
        return seen.collect();
    }
    seen.take(most.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

bounded!(
    /// A word or a short line, at most 253 characters, without control characters: people see it on terminals.
    Line, max = 253, pattern = "^[^\\p{Cc}]*$",
    words = "one line without control characters"
);
bounded!(
    /// Some paragraphs, at most 4,096 characters, without control characters but line breaks and tabs.
    Prose, max = 4096, pattern = "^[\\t\\n\\P{Cc}]*$",
    words = "text without control characters, but line breaks and tabs"
);
bounded!(
    /// A DNS label (RFC 1123), as names of namespaces, machines and volumes are.
    Label, max = 63, min = 1, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    words = "a name of at most 63 lower-case letters, digits and hyphens, with a letter or digit at both ends, such as ct-train"
);
bounded!(
    /// The name of a Kubernetes object (a DNS subdomain, RFC 1123).
    ObjectName, max = 253, min = 1, pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    words = "a name of lower-case letters, digits, hyphens and dots, with a letter or digit at both ends, such as ct-mr-2026"
);
bounded!(
    /// The UID of a Kubernetes object.
    Uid, max = 64, min = 1
);
bounded!(
    /// `namespace/name` of an object.
    Ref, max = 317, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    words = "a reference is written namespace/name, such as jichi/ct-mr"
);
bounded!(
    /// What an item of a host plan is about: long enough for a mount, which names a dataset and a machine.
    ItemName, max = 512
);
bounded!(
    /// A login as the API server knows it: printable ASCII, since logins that only look alike are no persons of ours.
    Login, max = 253, min = 1, pattern = "^[!-~]+$",
    words = "a login is printable ASCII without spaces, such as lead@osaka.example"
);
bounded!(
    /// A SHA-256 digest: `sha256:` and 64 hex digits.
    Digest, max = 71, pattern = "^sha256:[0-9a-f]{64}$",
    words = "a digest is sha256: and 64 lower-case hex digits, as sha256sum prints them"
);
bounded!(
    /// A code that a site may choose: letters, digits, `.`, `-`, `_`, `:`, `/`.
    Code, max = 128, min = 1, pattern = "^[A-Za-z0-9][-A-Za-z0-9._:/+ ]*$",
    words = "a code of letters, digits and . - _ : / + or space, which begins with a letter or digit, such as research-ethics"
);
bounded!(
    /// An absolute URL.
    Url, max = 2048, pattern = "^[a-z][a-z0-9+.-]*://[!-~]+$",
    words = "an absolute URL without spaces, such as https://example.org/terms"
);
bounded!(
    /// A path inside a machine: absolute, without `..`, letters, digits, `.`, `-`, `_`.
    MountPath, max = 255, min = 2, pattern = "^(/[A-Za-z0-9_][-A-Za-z0-9_.]*)+$",
    words = "a path in the machine: absolute, of letters, digits, . - _, no part of it beginning with a dot, such as /data/ct-mr"
);
bounded!(
    /// A path below a root: relative, without `..` and without a leading `.`.
    SubPath, max = 1024, min = 1, pattern = "^[A-Za-z0-9_][-A-Za-z0-9_.]*(/[A-Za-z0-9_][-A-Za-z0-9_.]*)*$",
    words = "a path below its root: relative, of letters, digits, . - _, no part of it beginning with a dot (so no ..), such as ct-mr/2026"
);
bounded!(
    /// An amount of memory or storage in bytes, with `Ki`, `Mi`, `Gi`, `Ti` if wanted.
    Bytes, max = 24, min = 1, pattern = "^[1-9][0-9]{0,14}(Ki|Mi|Gi|Ti)?$",
    words = "an amount is a whole number of bytes above 0, or of Ki, Mi, Gi, Ti, such as 64Gi"
);
bounded!(
    /// An IPv4 range in CIDR notation.
    Cidr, max = 18, min = 9, pattern = "^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])/(3[0-2]|[12]?[0-9])$",
    words = "a range of IPv4 addresses, such as 203.0.113.0/24"
);
bounded!(
    /// An ISO 8601 duration of years, months, weeks, days, hours, minutes: `P1Y`, `P90D`, `PT10M`.
    Period, max = 32, min = 3, pattern = "^P([0-9]{1,4}Y)?([0-9]{1,5}M)?([0-9]{1,5}W)?([0-9]{1,6}D)?(T([0-9]{1,6}H([0-9]{1,8}M)?([0-9]{1,9}S)?|[0-9]{1,8}M([0-9]{1,9}S)?|[0-9]{1,9}S))?$",
    words = "a duration as ISO 8601 writes it, such as P1Y, P90D or PT10M"
);
bounded!(
    /// A MONDO disease term: `MONDO:` and seven digits.
    Mondo, max = 13, pattern = "^MONDO:[0-9]{7}$",
    words = "a disease is MONDO: and seven digits, such as MONDO:0004992"
);
bounded!(
    /// A research organisation (ROR): `https://ror.org/` and nine characters.
    Ror, max = 25, pattern = "^https://ror\\.org/0[a-hj-km-np-tv-z0-9]{6}[0-9]{2}$",
    words = "an organisation is written as its ROR address, such as https://ror.org/035t8zc32"
);
bounded!(
    /// A person (ORCID): four groups of four digits, the last may end in X.
    Orcid, max = 19, pattern = "^[0-9]{4}-[0-9]{4}-[0-9]{4}-[0-9]{3}[0-9X]$",
    words = "an ORCID is four groups of four digits, the last of which may end in X, such as 0000-0002-1825-0097"
);
bounded!(
    /// An SPDX licence expression or `LicenseRef-…`.
    Licence, max = 253, min = 1, pattern = "^[A-Za-z0-9][-A-Za-z0-9.+() ]*$",
    words = "a licence is an SPDX expression or LicenseRef-…, such as CC-BY-4.0"
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
    fn what_we_say_fits() {
        assert_eq!(Line::cut("as it is"), "as it is");
        assert_eq!(Line::cut("a\u{1b}[2Jb\nc"), "a [2Jb c");
        let long = Line::cut(&"島".repeat(300));
        assert_eq!((long.as_str().chars().count(), long.as_str().chars().last()), (253, Some('…')));
    }

    #[test]
    fn an_organisation_has_one_short_form_and_back() {
        let ror = Ror::from("https://ror.org/035t8zc32");
        assert_eq!(ror.short(), "035t8zc32");
        assert_eq!(Ror::from_short(ror.short()), ror);
        assert_eq!(ror.group(), "dejima.dev/org/035t8zc32");
    }
}
