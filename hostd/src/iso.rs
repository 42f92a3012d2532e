//! A small ISO 9660 image: one directory of small files, with Rock Ridge for their names.
//!
//! ```text
//! sector 16  volume descriptor        18, 19  path table, in both byte orders
//!        17  end of the descriptors   20      directory
//!                                     21      files, each from a sector of its own
//! ```
//! It is made of its input alone: no clock, so that the same files give the same bytes.

use crate::driver::Error;

const SECTOR: usize = 2048;
const LITTLE_TABLE: usize = 18;
const BIG_TABLE: usize = 19;
const DIRECTORY: usize = 20;
const FILES: usize = 21;
/// The flag of a record that is a directory.
const IS_DIRECTORY: u8 = 2;
/// 2000-01-01: readers that insist on a date find one.
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];
/// The length of a path table with the root alone.
const TABLE_LENGTH: usize = 10;

/// One file.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name: lower-case letters, digits, `-`, at most 30 of them.
    pub name: &'a str,
    /// What is in it.
    pub content: &'a [u8],
}

/// The image of a volume with a label and files.
pub fn image(label: &str, files: &[File<'_>]) -> Result<Vec<u8>, Error> {
    let plain = |text: &str, most: usize| {
        let sign = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !text.is_empty() && text.len() <= most && text.bytes().all(sign)
    };
    if !plain(label, 32) || !files.iter().all(|file| plain(file.name, 30)) {
        return Err(Error::Missing(format!(
            "`{label}` or one of its files has no name that can be written"
        )));
    }
    let mut contents = Vec::new();
    let mut records = vec![
        record(&[0], DIRECTORY, SECTOR, IS_DIRECTORY, &extensions())?,
        record(&[1], DIRECTORY, SECTOR, IS_DIRECTORY, &[])?,
    ];
    // The standard wants the names in order.
    let mut ordered: Vec<&File<'_>> = files.iter().collect();
    ordered.sort_by_key(|file| file.name);
    for file in ordered {
        let at = FILES + contents.len() / SECTOR;
        let name = format!("{}.;1", file.name.to_ascii_uppercase());
        records.push(record(name.as_bytes(), at, file.content.len(), 0, &alternate_name(file.name)?)?);
        contents.extend_from_slice(file.content);
        contents.resize(contents.len().next_multiple_of(SECTOR), 0);
    }
    let directory = records.concat();
    if directory.len() > SECTOR {
        return Err(Error::Missing(format!("the files of `{label}` do not fit into one directory")));
    }
    let sectors = FILES + contents.len() / SECTOR;
    let mut image = vec![0; 16 * SECTOR];
    for part in [
        descriptor(label, sectors)?,
        [&b"\xffCD001\x01"[..]].concat(),
        table(u32::to_le_bytes, u16::to_le_bytes)?,
        table(u32::to_be_bytes, u16::to_be_bytes)?,
        directory,
    ] {
        image.extend_from_slice(&part);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    }
    image.extend_from_slice(&contents);
    Ok(image)
}

fn number(value: usize) -> Result<u32, Error> {
    u32::try_from(value).map_err(|cause| Error::driver("write an image", "of ISO 9660", cause))
}

/// A number in both byte orders.
fn both(value: usize) -> Result<Vec<u8>, Error> {
    let value = number(value)?;
    Ok([value.to_le_bytes(), value.to_be_bytes()].concat())
}

fn length(bytes: usize) -> Result<u8, Error> {
    u8::try_from(bytes).map_err(|cause| Error::driver("write a record", "of ISO 9660", cause))
}

/// A record of a directory, with what Rock Ridge adds to it.
fn record(name: &[u8], at: usize, bytes: usize, flags: u8, extra: &[u8]) -> Result<Vec<u8>, Error> {
    let padding = (name.len() + 1) % 2;
    let size = (33 + name.len() + padding + extra.len()).next_multiple_of(2);
    let mut record = vec![length(size)?, 0];
    record.extend(both(at)?);
    record.extend(both(bytes)?);
    record.extend(DATE);
    record.extend([flags, 0, 0, 1, 0, 0, 1, length(name.len())?]);
    record.extend(name);
    record.resize(33 + name.len() + padding, 0);
    record.extend(extra);
    record.resize(size, 0);
    Ok(record)
}

/// What the directory's own record says of the extensions that are in use.
fn extensions() -> Vec<u8> {
    let mut bytes = vec![b'S', b'P', 7, 1, 0xbe, 0xef, 0];
    bytes.extend([b'E', b'R', 18, 1, 10, 0, 0, 1]);
    bytes.extend(b"RRIP_1991A");
    bytes
}

/// The name as it is, which the standard's own names (upper case, no `-`) do not give.
fn alternate_name(name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![b'N', b'M', length(5 + name.len())?, 1, 0];
    bytes.extend(name.bytes());
    Ok(bytes)
}

/// A path table: the root, its own parent.
fn table(word: fn(u32) -> [u8; 4], half: fn(u16) -> [u8; 2]) -> Result<Vec<u8>, Error> {
    let mut table = vec![1, 0];
    table.extend(word(number(DIRECTORY)?));
    table.extend(half(1));
    table.extend([0, 0]);
    Ok(table)
}

/// The primary volume descriptor, field by field.
fn descriptor(label: &str, sectors: usize) -> Result<Vec<u8>, Error> {
    let blank = |bytes: usize| vec![b' '; bytes];
    let mut volume = b"\x01CD001\x01\0".to_vec();
    volume.extend(blank(32));
    volume.extend(label.bytes());
    volume.resize(72, b' ');
    volume.extend([0; 8]);
    volume.extend(both(sectors)?);
    volume.extend([0; 32]);
    // One volume, the first of its set; sectors of 2,048 bytes.
    volume.extend([1, 0, 0, 1, 1, 0, 0, 1, 0, 8, 8, 0]);
    volume.extend(both(TABLE_LENGTH)?);
    volume.extend(number(LITTLE_TABLE)?.to_le_bytes());
    volume.extend([0; 4]);
    volume.extend(number(BIG_TABLE)?.to_be_bytes());
    volume.extend([0; 4]);
    volume.extend(record(&[0], DIRECTORY, SECTOR, IS_DIRECTORY, &[])?);
    // Who published and prepared it, and three names of files: none.
    volume.extend(blank(4 * 128 + 3 * 37));
    for _ in 0..4 {
        // No date: sixteen digits of zero, and the zone.
        volume.extend([b'0'; 16]);
        volume.push(0);
    }
    volume.extend([1, 0]);
    Ok(volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word(bytes: &[u8], at: usize) -> usize {
        let little = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let big = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        assert_eq!(little, big, "the two byte orders differ at {at}");
        usize::try_from(little).unwrap()
    }

    /// The standard's name, the name of Rock Ridge, and the content of each file, as a reader finds them.
    fn read(image: &[u8]) -> Vec<(String, String, Vec<u8>)> {
        let root = &image[16 * SECTOR + 156..16 * SECTOR + 190];
        let (at, size) = (word(root, 2) * SECTOR, word(root, 10));
        let mut rest = &image[at..at + size];
        let mut files = Vec::new();
        while rest[0] != 0 {
            let (record, after) = rest.split_at(usize::from(rest[0]));
            rest = after;
            if record[25] == IS_DIRECTORY {
                continue;
            }
            let length = usize::from(record[32]);
            let name = String::from_utf8(record[33..33 + length].to_vec()).unwrap();
            let extra = &record[33 + length + (length + 1) % 2..];
            assert_eq!((&extra[..2], extra[3], extra[4]), (&b"NM"[..], 1, 0));
            let alternate = String::from_utf8(extra[5..usize::from(extra[2])].to_vec()).unwrap();
            let (at, size) = (word(record, 2) * SECTOR, word(record, 10));
            files.push((name, alternate, image[at..at + size].to_vec()));
        }
        files
    }

    #[test]
    fn every_field_reads_back() {
        let large = vec![7; SECTOR + 1];
        let file = |name, content| File { name, content };
        let image = image("cidata", &[file("user-data", &large), file("meta-data", b"{}"), file("empty", b"")]).unwrap();
        let named = |upper: &str, name: &str, content: &[u8]| (upper.to_owned(), name.to_owned(), content.to_vec());
        assert_eq!(
            read(&image),
            [
                named("EMPTY.;1", "empty", b""),
                named("META-DATA.;1", "meta-data", b"{}"),
                named("USER-DATA.;1", "user-data", &large)
            ]
        );
        let volume = &image[16 * SECTOR..17 * SECTOR];
        assert_eq!((&volume[..8], volume[881]), (&b"\x01CD001\x01\0"[..], 1));
        assert_eq!(&volume[40..72], format!("{:32}", "cidata").as_bytes());
        assert_eq!(word(volume, 80) * SECTOR, image.len());
        assert_eq!(&volume[120..132], [1, 0, 0, 1, 1, 0, 0, 1, 0, 8, 8, 0]);
        assert_eq!(word(volume, 132), TABLE_LENGTH);
        assert_eq!((&volume[140..144], &volume[148..152]), (&[18, 0, 0, 0][..], &[0, 0, 0, 19][..]));
        assert_eq!(&image[17 * SECTOR..][..7], b"\xffCD001\x01");
        assert_eq!(&image[LITTLE_TABLE * SECTOR..][..TABLE_LENGTH], [1, 0, 20, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(&image[BIG_TABLE * SECTOR..][..TABLE_LENGTH], [1, 0, 0, 0, 0, 20, 0, 1, 0, 0]);
        let own = &image[DIRECTORY * SECTOR..];
        assert_eq!((word(own, 2), &own[34..41]), (DIRECTORY, &b"SP\x07\x01\xbe\xef\x00"[..]));
        assert_eq!(&own[41..59], b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
    }

    #[test]
    fn a_name_that_cannot_be_written_is_refused() {
        for name in ["", "A", "a.b", "a/b", &"a".repeat(31)] {
            assert!(image("cidata", &[File { name, content: b"" }]).is_err(), "`{name}` was written");
            assert!(image(&name.repeat(2), &[]).is_err(), "the label `{name}` twice was written");
        }
        let names: Vec<String> = (0..99).map(|number| format!("file-{number}")).collect();
        let files: Vec<File<'_>> = names.iter().map(|name| File { name, content: b"" }).collect();
        assert!(image("cidata", &files).is_err(), "a directory of more than one sector was written");
        assert!(image("cidata", &files[..20]).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_in_one_file_changes_no_other(one in proptest::collection::vec(any::<u8>(), 0..5000), two in any::<Vec<u8>>()) {
            let image = image("cidata", &[File { name: "two", content: &two }, File { name: "one", content: &one }]).unwrap();
            let contents: Vec<Vec<u8>> = read(&image).into_iter().map(|(_, _, content)| content).collect();
            prop_assert_eq!(contents, [one, two]);
        }
    }
}
