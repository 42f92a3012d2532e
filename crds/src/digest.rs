//! Digests over what objects say: RFC 8785 JSON, SHA-256.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::bounded::Digest;

/// A value that has no JSON form (a map whose keys are no strings, a number that is not finite).
#[derive(Debug, thiserror::Error)]
#[error("cannot write the value as canonical JSON")]
pub struct NotJson(#[source] serde_json::Error);

/// The SHA-256 digest of bytes.
pub fn of_bytes(bytes: &[u8]) -> Digest {
    Digest::from(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
}

/// The RFC 8785 form of a value.
pub fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>, NotJson> {
    serde_json_canonicalizer::to_vec(value).map_err(NotJson)
}

/// The SHA-256 digest of the RFC 8785 form of a value.
pub fn of_value<T: Serialize>(value: &T) -> Result<Digest, NotJson> {
    canonical(value).map(|bytes| of_bytes(&bytes))
}

impl Digest {
    /// The hex digits without `sha256:`.
    pub fn hex(&self) -> &str {
        self.as_str().strip_prefix("sha256:").unwrap_or(self.as_str())
    }

    /// The first `n` hex digits.
    pub fn short(&self, n: usize) -> &str {
        self.hex().get(..n).unwrap_or(self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_does_not_change_a_digest() {
        let one = of_value(&serde_json::json!({"b": 1, "a": [1.0, "x"]})).unwrap();
        let two = of_value(&serde_json::json!({"a": [1, "x"], "b": 1})).unwrap();
        assert_eq!(one, two);
        assert_ne!(one, of_value(&serde_json::json!({"a": ["x", 1], "b": 1})).unwrap());
        assert_eq!(of_bytes(b"").short(8), "e3b0c442");
    }
}
