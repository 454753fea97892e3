//! Compiled images on disk.
//!
//! An entry is one file: a header with the payload's length and checksum, then the payload. It appears by renaming a
//! finished temporary file, so that readers and other writers never see half of one. A cache that cannot be read or
//! written costs time, never correctness: it is reported through `tracing` and passed over.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::options::KernelCache;

const MAGIC: &[u8; 16] = b"siluette image 1";
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u64>() + size_of::<u128>();

/// A folder of compiled images, or none.
#[derive(Debug)]
pub(crate) struct DiskCache {
    folder: Option<PathBuf>,
}

impl DiskCache {
    /// Reads the environment, for [`KernelCache::User`].
    pub fn new(cache: &KernelCache) -> DiskCache {
        let folder = match cache {
            KernelCache::User => user_folder(|name| std::env::var_os(name).map(PathBuf::from)),
            KernelCache::Folder(folder) => Some(folder.clone()),
            KernelCache::None => None,
        };
        DiskCache { folder }
    }

    /// The payload stored under this key; anything that is not exactly what was stored counts as absent.
    pub fn load(&self, key: u128) -> Option<Vec<u8>> {
        let path = entry_path(self.folder.as_ref()?, key);
        match fs::read(&path) {
            Ok(entry) => {
                let payload = unwrap_entry(&entry).map(<[u8]>::to_vec);
                if payload.is_none() {
                    tracing::warn!(path = %path.display(), "damaged kernel image, compiling it again");
                }
                payload
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "kernel image cannot be read");
                None
            }
        }
    }

    /// Stores a payload, or says why not.
    pub fn store(&self, key: u128, payload: &[u8]) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = write_entry(folder, key, payload) {
            tracing::warn!(folder = %folder.display(), %error, "kernel image cannot be stored");
        }
    }
}

fn write_entry(folder: &Path, key: u128, payload: &[u8]) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(folder)?;
    // Other processes have other ids, other threads other counts.
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!("{key:032x}.{}.{count}.tmp", std::process::id()));
    let written = fs::File::create_new(&temporary)
        .and_then(|mut file| {
            file.write_all(&header(payload))?;
            file.write_all(payload)
        })
        .and_then(|()| fs::rename(&temporary, entry_path(folder, key)));
    if written.is_err() {
        // Nothing more can be done about a file that cannot be removed either.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn entry_path(folder: &Path, key: u128) -> PathBuf {
    folder.join(format!("{key:032x}.image"))
}

fn header(payload: &[u8]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend((payload.len() as u64).to_le_bytes());
    header.extend(Hash::of(payload).to_le_bytes());
    header
}

fn unwrap_entry(entry: &[u8]) -> Option<&[u8]> {
    let (found, payload) = entry.split_at_checked(HEADER_BYTES)?;
    (found == header(payload)).then_some(payload)
}

/// `$XDG_CACHE_HOME`, else `~/.cache`; on Windows the local application data.
fn user_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .or_else(|| absolute("LOCALAPPDATA"))?;
    Some(base.join("siluette").join("cuda"))
}

/// FNV-1a, 128 bits: keys and checksums against accidents, not against malice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(u128);

impl Hash {
    const OFFSET_BASIS: u128 = 0x6c62272e07bb014262b821756295c58d;
    const PRIME: u128 = 0x0000000001000000000000000000013b;

    pub fn new() -> Hash {
        Hash(Hash::OFFSET_BASIS)
    }

    pub fn of(bytes: &[u8]) -> u128 {
        bytes.iter().fold(Hash::OFFSET_BASIS, |hash, &byte| {
            (hash ^ u128::from(byte)).wrapping_mul(Hash::PRIME)
        })
    }

    /// Adds a part; its length too, so that parts cannot run into each other.
    pub fn add(&mut self, part: &str) {
        for &byte in (part.len() as u64).to_le_bytes().iter().chain(part.as_bytes()) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Hash::PRIME);
        }
    }

    pub fn finish(self) -> u128 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_in(folder: &Path) -> DiskCache {
        DiskCache::new(&KernelCache::Folder(folder.to_owned()))
    }

    #[test]
    fn entries_come_back_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache_in(&folder.path().join("made/on/demand"));
        assert_eq!(cache.load(7), None);
        cache.store(7, b"an image");
        assert_eq!(cache.load(7).as_deref(), Some(&b"an image"[..]));
        assert_eq!(cache.load(8), None);
        let path = entry_path(cache.folder.as_ref().unwrap(), 7);
        let entry = fs::read(&path).unwrap();
        for length in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, entry.len() - 1] {
            fs::write(&path, &entry[..length]).unwrap();
            assert_eq!(cache.load(7), None, "cut to {length}");
        }
        for position in 0..entry.len() {
            let mut damaged = entry.clone();
            damaged[position] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.load(7), None, "bit flipped in byte {position}");
        }
        cache.store(7, b"another");
        assert_eq!(cache.load(7).as_deref(), Some(&b"another"[..]));
    }

    #[test]
    fn an_unusable_folder_is_as_good_as_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for cache in [cache_in(file.path()), DiskCache::new(&KernelCache::None)] {
            cache.store(1, b"an image");
            assert_eq!(cache.load(1), None);
        }
    }

    #[test]
    fn concurrent_writers_leave_one_whole_entry_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache_in(folder.path());
        let payload = |writer: u8| vec![writer; 100_000];
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    for _ in 0..20 {
                        cache.store(3, &payload(writer));
                        let found = cache.load(3).unwrap();
                        assert_eq!(found, payload(found[0]));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_users_folder_follows_the_environment() {
        let folder = |variables: &[(&str, &str)]| {
            user_folder(|wanted| {
                let found = variables.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| PathBuf::from(value))
            })
        };
        let cache = Some(PathBuf::from("/c/siluette/cuda"));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), cache);
        let cache = Some(PathBuf::from("/h/.cache/siluette/cuda"));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]), cache);
        assert_eq!(folder(&[]), None);
    }

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        let key = |parts: &[&str]| {
            let mut hash = Hash::new();
            parts.iter().for_each(|part| hash.add(part));
            hash.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        // The published test vector of the empty string.
        assert_eq!(Hash::of(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(Hash::of(b"foobar"), 0x343e1662793c64bf6f0d3597ba446f18);
    }
}
