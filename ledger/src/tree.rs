//! The Merkle tree over records (RFC 9162, section 2.1.1): a leaf is SHA-256(0x00 || bytes), a node SHA-256(0x01 || left || right).

use sha2::{Digest as _, Sha256};

/// A hash of the tree.
pub type Hash = [u8; 32];

/// The hash of a leaf.
pub fn leaf(bytes: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(bytes).finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The roots of the perfect subtrees of a growing tree, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    roots: Vec<(u32, Hash)>,
}

impl Frontier {
    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let (mut height, mut hash) = (0, leaf);
        while let Some((_, left)) = self.roots.pop_if(|(other, _)| *other == height) {
            hash = node(&left, &hash);
            height += 1;
        }
        self.roots.push((height, hash));
    }

    /// The root; of an empty tree the hash of nothing.
    pub fn root(&self) -> Hash {
        let joined = self
            .roots
            .iter()
            .rev()
            .map(|(_, hash)| *hash)
            .reduce(|right, left| node(&left, &right));
        joined.unwrap_or_else(|| Sha256::digest([]).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of RFC 9162, word for word: split at the largest power of two below the size.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            more => {
                let split = more.len().next_power_of_two() / 2;
                node(&defined(&more[..split]), &defined(&more[split..]))
            }
        }
    }

    #[test]
    fn the_empty_tree_and_the_first_leaf_are_as_the_rfc_says() {
        assert_eq!(
            hex::encode(Frontier::default().root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            hex::encode(leaf(b"")),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
    }

    proptest! {
        #[test]
        fn a_tree_that_grew_leaf_by_leaf_has_the_root_of_the_definition(count in 0_usize..130) {
            let leaves: Vec<Hash> = (0..count).map(|at| leaf(&at.to_be_bytes())).collect();
            let mut frontier = Frontier::default();
            for leaf in &leaves {
                frontier.push(*leaf);
            }
            prop_assert_eq!(frontier.root(), defined(&leaves));
        }
    }
}
