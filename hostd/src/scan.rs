//! Reads a dataset's source: every regular file below it, never through a symlink, never above the root, never onto
//! another file system (openat2(2): RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV).

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use dejima_crds::bounded::Digest;
use dejima_plan::manifest::FileEntry;
use nix::dir::Dir;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::driver::Error;

/// How many directories may lie in each other.
const DEPTH: usize = 64;

fn how(flags: OFlag) -> OpenHow {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(Mode::empty()).resolve(resolve)
}

/// A source that is open: nothing that is renamed or linked meanwhile leads out of it.
#[derive(Debug)]
pub struct Source {
    root: OwnedFd,
    shown: String,
}

impl Source {
    /// Opens `path` below `root` below `base`; `base` is the host's own, the rest came from objects.
    pub fn open(base: &Path, root: &str, path: &str) -> Result<Self, Error> {
        let shown = format!("{root}/{path}");
        let failed = |cause: nix::Error| Error::driver("open the source", shown.clone(), cause);
        let base = nix::fcntl::open(base, OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
        let root = openat2(&base, root, how(OFlag::O_DIRECTORY | OFlag::O_PATH)).map_err(failed)?;
        let root = openat2(&root, path, how(OFlag::O_DIRECTORY | OFlag::O_RDONLY)).map_err(failed)?;
        Ok(Self { root, shown })
    }

    /// Opens one file of it.
    pub fn file(&self, path: &str) -> Result<std::fs::File, Error> {
        let opened = openat2(&self.root, path, how(OFlag::O_RDONLY | OFlag::O_NONBLOCK));
        opened
            .map(std::fs::File::from)
            .map_err(|cause| Error::driver("open", format!("`{path}` of {}", self.shown), cause))
    }

    /// Every file with its size and digest.
    pub fn scan(&self) -> Result<Vec<FileEntry>, Error> {
        let mut files = Vec::new();
        self.walk(self.root.as_fd(), &mut PathBuf::new(), 0, &mut files)?;
        files.sort();
        Ok(files)
    }

    fn walk(&self, folder: impl AsFd, path: &mut PathBuf, depth: usize, files: &mut Vec<FileEntry>) -> Result<(), Error> {
        let here = |path: &Path| format!("`{}` of {}", path.display(), self.shown);
        if depth > DEPTH {
            return Err(Error::Missing(format!("{} lies more than {DEPTH} directories deep", here(path))));
        }
        let again =
            openat2(&folder, ".", how(OFlag::O_DIRECTORY | OFlag::O_RDONLY)).map_err(|cause| Error::driver("read", here(path), cause))?;
        let listed = Dir::from_fd(again).map_err(|cause| Error::driver("read", here(path), cause))?;
        for entry in listed {
            let entry = entry.map_err(|cause| Error::driver("read", here(path), cause))?;
            let name = entry
                .file_name()
                .to_str()
                .map_err(|cause| Error::driver("read a name in", here(path), cause))?
                .to_owned();
            if name == "." || name == ".." {
                continue;
            }
            path.push(&name);
            let opened = openat2(&folder, name.as_str(), how(OFlag::O_RDONLY | OFlag::O_NONBLOCK));
            // A symlink is ELOOP here: it is named, never followed.
            let opened = opened.map_err(|cause| Error::driver("read (symlinks and mount points are not followed)", here(path), cause))?;
            let kind = SFlag::from_bits_truncate(fstat(&opened).map_err(|cause| Error::driver("look at", here(path), cause))?.st_mode)
                & SFlag::S_IFMT;
            if kind == SFlag::S_IFDIR {
                self.walk(&opened, path, depth + 1, files)?;
            } else if kind == SFlag::S_IFREG {
                let (bytes, digest) =
                    digest(&mut std::fs::File::from(opened), |_| Ok(())).map_err(|cause| Error::driver("read", here(path), cause))?;
                files.push(FileEntry {
                    path: path.to_string_lossy().into_owned(),
                    bytes,
                    digest,
                });
            } else {
                return Err(Error::Missing(format!("{} is neither a file nor a directory", here(path))));
            }
            path.pop();
        }
        Ok(())
    }
}

/// Size and SHA-256 of what a file gives, each piece handed on as it is read.
pub fn digest(file: &mut std::fs::File, mut piece: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<(u64, Digest)> {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        hash.update(read);
        piece(read)?;
        bytes += count as u64;
    }
    Ok((bytes, Digest::from(format!("sha256:{}", hex::encode(hash.finalize())))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_read_and_nothing_leads_out_of_the_root() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("jichi/ct");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/one.dcm"), b"one").unwrap();
        std::fs::write(root.join("two.dcm"), b"").unwrap();
        std::fs::write(base.path().join("secret"), b"of another tenant").unwrap();
        let scan = || Source::open(base.path(), "jichi", "ct").and_then(|source| source.scan());
        let files = scan().unwrap();
        assert_eq!(
            files.iter().map(|file| (file.path.as_str(), file.bytes)).collect::<Vec<_>>(),
            [("a/b/one.dcm", 3), ("two.dcm", 0)]
        );
        assert_eq!(files[1].digest.short(8), "e3b0c442");

        for path in ["..", "../..", "ct/../../secret", "/"] {
            assert!(Source::open(base.path(), "jichi", path).is_err(), "{path}");
        }
        std::os::unix::fs::symlink("../../secret", root.join("link.dcm")).unwrap();
        let error = scan().unwrap_err().to_string();
        assert!(error.contains("`link.dcm`") && error.contains("symlinks"), "{error}");
        std::fs::remove_file(root.join("link.dcm")).unwrap();
        std::os::unix::fs::symlink("jichi", base.path().join("other")).unwrap();
        assert!(Source::open(base.path(), "other", "ct").is_err(), "a root that is a symlink");
        assert!(scan().is_ok(), "the control");
    }
}
