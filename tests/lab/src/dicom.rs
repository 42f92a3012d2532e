//! Real CT and MR images: those among the test files of a Python package on DICOM that say of themselves that they are.
//!
//! The package is only unpacked; none of its code runs.

use std::path::{Path, PathBuf};

use crate::run::{Error, file};
use crate::{Reporter, binaries, cache};

const PACKAGE: &str = "pydicom==3.0.1";
const PACKAGE_SHA256: &str = "db32f78b2641bd7972096b8289111ddab01fb221610de8d7afa835eb938adb41";
const TEST_FILES: &str = "pydicom/data/test_files";
const SELECTION: &[u8] = b"modality CT or MR, with pixels";
/// The element of the pixels, (7FE0,0010), little endian.
const PIXELS: &[u8] = b"\xe0\x7f\x10\x00";

/// A directory with some forty DICOM files in a few folders, 1 MB in all; the same files each time.
pub fn images(reporter: &dyn Reporter) -> Result<PathBuf, Error> {
    let package = binaries::wheel("pydicom", PACKAGE, PACKAGE_SHA256, reporter)?;
    cache::entry("dicom", &cache::key(&[PACKAGE_SHA256.as_bytes(), SELECTION]), |out| {
        let source = package.join(TEST_FILES);
        let mut taken = 0_u32;
        for path in files(&source)? {
            let bytes = file("read", &path, std::fs::read(&path))?;
            let Some(modality) = modality(&bytes) else { continue };
            if !bytes.windows(PIXELS.len()).any(|window| window == PIXELS) {
                continue;
            }
            let inner = path.strip_prefix(&source).unwrap_or(&path);
            let target = out.join(modality).join(inner);
            if let Some(folder) = target.parent() {
                file("make", folder, std::fs::create_dir_all(folder))?;
            }
            file("write", &target, std::fs::write(&target, &bytes))?;
            taken += 1;
        }
        if taken < 30 {
            return Err(Error::Unexpected(format!(
                "`{PACKAGE}` holds {taken} images of CT and MR only; 30 were expected"
            )));
        }
        Ok(())
    })
}

/// All files below a directory, in the order of their paths.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in file("read", folder, std::fs::read_dir(folder))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The modality that a DICOM file gives itself, where it is CT or MR: element (0008,0060), of two bytes, little endian.
fn modality(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(128..132)? != b"DICM" {
        return None;
    }
    let explicit = [0x08, 0, 0x60, 0, b'C', b'S', 2, 0];
    let implicit = [0x08, 0, 0x60, 0, 2, 0, 0, 0];
    let value = bytes.windows(10).find_map(|window| {
        let (element, value) = window.split_at_checked(8)?;
        (element == explicit || element == implicit).then_some(value)
    });
    match value? {
        b"CT" => Some("CT"),
        b"MR" => Some("MR"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::modality;

    fn image(element: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes.extend_from_slice(b"DICM");
        bytes.extend_from_slice(element);
        bytes
    }

    #[test]
    fn an_image_is_taken_for_what_its_header_says() {
        assert_eq!(modality(&image(b"\x08\x00\x60\x00CS\x02\x00MR")), Some("MR"));
        assert_eq!(modality(&image(b"\x08\x00\x60\x00\x02\x00\x00\x00CT")), Some("CT"));
        assert_eq!(modality(&image(b"\x08\x00\x60\x00CS\x02\x00CR")), None);
        assert_eq!(modality(b"\x08\x00\x60\x00CS\x02\x00CT"), None);
    }
}
