//! What a machine is told while it runs: the map of mounts, as the bytes of a small disk.
//!
//! ```text
//! dejima-map 1 <SHA-256 of all that follows>
//! volume    <path>  new|kept   <serial>
//! dataset   <path>  <serial>   <serial> ...
//! end
//! ```
//! Lines are separated by line feeds, words by tabs. `guest/mount.sh` obeys it; one that is torn it does not know.
//!
//! Behind the text lies nothing, as long as [`ANSWER`]. A guest that did what the map says, and uses nothing any more that the map
//! does not name, reads all of that once: how much was read of a disk is seen on the host, so that the guest can answer without
//! an agent and without anything to write to.

use std::collections::BTreeSet;
use std::path::Path;

use dejima_crds::digest;
use dejima_plan::host::{MapEntry, MapKind, map_digest};

/// Where the serial of every map begins.
pub const SERIAL_PREFIX: &str = "dejimamap";
/// The size of the text is a multiple of this.
const BLOCK: usize = 4096;
/// How many bytes of nothing follow the text: more than anybody reads of a disk to find out what it is.
pub const ANSWER: u64 = 16 << 20;

/// The text on the disk, whole blocks; `new` are the serials of volumes to which nothing was ever written.
pub fn map_disk(map: &[MapEntry], new: &BTreeSet<String>) -> Vec<u8> {
    let mut lines: String = map
        .iter()
        .filter(|entry| can_be_written(entry))
        .map(|entry| line(entry, new))
        .collect();
    lines.push_str("end\n");
    let digest = digest::of_bytes(lines.as_bytes());
    let mut disk = format!("dejima-map 1 {}\n{lines}", digest.hex()).into_bytes();
    disk.resize(disk.len().next_multiple_of(BLOCK), 0);
    disk
}

/// Writes the disk: its text, and what a guest reads to answer.
pub fn write_disk(file: &Path, text: &[u8]) -> std::io::Result<()> {
    std::fs::write(file, text)?;
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX).saturating_add(ANSWER);
    std::fs::File::options().write(true).open(file)?.set_len(length)
}

/// The serial of the disk: another map has another one.
pub fn map_serial(map: &[MapEntry]) -> String {
    // A SCSI serial has room for 36 bytes.
    format!("{SERIAL_PREFIX}{}", map_digest(map).short(24))
}

/// Whether an entry is one line and its words stay apart. Admission lets no other pass.
fn can_be_written(entry: &MapEntry) -> bool {
    let path = entry.path.starts_with('/') && !entry.path.contains(char::is_control);
    let serial = |serial: &String| {
        let sign = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !serial.is_empty() && serial.bytes().all(sign)
    };
    path && !entry.serials.is_empty() && entry.serials.iter().all(serial)
}

fn line(entry: &MapEntry, new: &BTreeSet<String>) -> String {
    let serials = entry.serials.join("\t");
    match entry.kind {
        MapKind::Dataset => format!("dataset\t{}\t{serials}\n", entry.path),
        MapKind::Volume => {
            let age = if entry.serials.iter().all(|serial| new.contains(serial)) {
                "new"
            } else {
                "kept"
            };
            format!("volume\t{}\t{age}\t{serials}\n", entry.path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(kind: MapKind, path: &str, serials: &[&str]) -> MapEntry {
        MapEntry {
            path: path.to_owned(),
            kind,
            serials: serials.iter().map(|serial| (*serial).to_owned()).collect(),
        }
    }

    /// What the first line vouches for, or nothing where it does not.
    fn vouched(disk: &[u8]) -> Option<String> {
        let text = String::from_utf8(disk.iter().copied().take_while(|byte| *byte != 0).collect()).ok()?;
        let (first, rest) = text.split_once('\n')?;
        (first == format!("dejima-map 1 {}", digest::of_bytes(rest.as_bytes()).hex())).then(|| rest.to_owned())
    }

    #[test]
    fn a_map_is_lines_under_their_own_digest() {
        let map = [
            entry(MapKind::Dataset, "/data/ct", &["aa", "bb"]),
            entry(MapKind::Volume, "/scratch", &["cc"]),
            entry(MapKind::Volume, "/old", &["dd"]),
        ];
        let mut disk = map_disk(&map, &BTreeSet::from(["cc".to_owned()]));
        assert_eq!(disk.len(), BLOCK);
        let lines = "dataset\t/data/ct\taa\tbb\nvolume\t/scratch\tnew\tcc\nvolume\t/old\tkept\tdd\nend\n";
        assert_eq!(vouched(&disk).unwrap(), lines);
        disk[90] ^= 1;
        assert_eq!(vouched(&disk), None);
        assert_eq!(vouched(&map_disk(&[], &BTreeSet::new())).unwrap(), "end\n");
    }

    #[test]
    fn a_map_that_does_not_fit_into_a_block_takes_another() {
        let serials: Vec<String> = (0..1000).map(|number| format!("{number:032x}")).collect();
        let map = [MapEntry {
            path: "/data".into(),
            kind: MapKind::Dataset,
            serials,
        }];
        let disk = map_disk(&map, &BTreeSet::new());
        assert_eq!((disk.len() % BLOCK, disk.len() > 33_000), (0, true));
        assert!(vouched(&disk).is_some());
    }

    #[test]
    fn the_serial_fits_a_disk_and_tells_one_map_from_another() {
        let one = map_serial(&[entry(MapKind::Volume, "/scratch", &["cc"])]);
        assert!(one.starts_with(SERIAL_PREFIX) && one.len() <= 36, "{one}");
        assert_ne!(one, map_serial(&[]));
    }

    proptest! {
        #[test]
        fn no_path_and_no_serial_makes_a_line_of_its_own(path in "(/|\\PC|[\t\n\r\0])*", serial in "\\PC*|[a-f0-9]{32}|[a-z\t\n]*") {
            let map = [entry(MapKind::Dataset, &path, &[&serial]), entry(MapKind::Volume, "/scratch", &["cc"])];
            let text = vouched(&map_disk(&map, &BTreeSet::new())).unwrap();
            let lines: Vec<Vec<&str>> = text.split_terminator('\n').map(|line| line.split('\t').collect()).collect();
            let ours = vec![vec!["volume", "/scratch", "kept", "cc"], vec!["end"]];
            let all = [vec![vec!["dataset", path.as_str(), serial.as_str()]], ours.clone()].concat();
            let signs = "abcdefghijklmnopqrstuvwxyz0123456789-";
            let stands = path.starts_with('/') && !path.contains(char::is_control) && !serial.is_empty() && serial.chars().all(|sign| signs.contains(sign));
            prop_assert_eq!(lines, if stands { all } else { ours });
        }
    }
}
