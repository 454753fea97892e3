//! What a device says about itself, and what can be learnt about the machine's processor.

use std::collections::BTreeSet;
use std::path::Path;

/// The processor: model, threads, instruction sets and last-level cache, as far as the system tells.
pub(super) fn processor() -> Vec<(&'static str, String)> {
    let mut details = Vec::new();
    if let Some(model) = processor_model() {
        details.push(("model", model));
    }
    details.push(("threads", rayon::current_num_threads().to_string()));
    details.push(("instructions", instruction_sets().join(" ")));
    if let Some(bytes) = last_level_cache() {
        details.push(("last_level_cache_bytes", bytes.to_string()));
    }
    details
}

fn processor_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The instruction sets that matter to kernels and that this processor has.
fn instruction_sets() -> Vec<&'static str> {
    macro_rules! detected {
        ($detect:ident: $($name:tt)*) => {
            [$(($name, std::arch::$detect!($name))),*]
                .into_iter()
                .filter_map(|(name, present)| present.then_some(name))
                .collect()
        };
    }
    #[cfg(target_arch = "x86_64")]
    return detected!(is_x86_feature_detected: "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vl" "avx512bf16");
    #[cfg(target_arch = "aarch64")]
    return detected!(is_aarch64_feature_detected: "neon" "fp16" "bf16" "i8mm" "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Vec::new();
}

/// All instances of the last-level cache together; `None` where the system does not tell.
pub(super) fn last_level_cache() -> Option<u64> {
    let mut level = 0;
    let mut bytes = 0;
    let mut seen = BTreeSet::new();
    for cpu in std::fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        let Ok(caches) = std::fs::read_dir(cpu.path().join("cache")) else { continue };
        for cache in caches.flatten() {
            let Some(cache) = Cache::read(&cache.path()) else { continue };
            if cache.level > level {
                (level, bytes) = (cache.level, 0);
                seen.clear();
            }
            if cache.level == level && seen.insert(cache.shared_by) {
                bytes += cache.bytes;
            }
        }
    }
    (bytes > 0).then_some(bytes)
}

struct Cache {
    level: u32,
    bytes: u64,
    shared_by: String,
}

impl Cache {
    fn read(folder: &Path) -> Option<Cache> {
        let field =
            |name: &str| Some(std::fs::read_to_string(folder.join(name)).ok()?.trim().to_owned());
        let kibibytes: u64 = field("size")?.strip_suffix('K')?.parse().ok()?;
        Some(Cache {
            level: field("level")?.parse().ok()?,
            bytes: kibibytes * 1024,
            shared_by: field("shared_cpu_list")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_read_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Cache::read(folder.path()).is_none());
        for (name, text) in [("size", "32768K\n"), ("level", "3\n"), ("shared_cpu_list", "0-7\n")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let cache = Cache::read(folder.path()).unwrap();
        assert_eq!((cache.level, cache.bytes, cache.shared_by.as_str()), (3, 32 << 20, "0-7"));
    }

    #[test]
    fn the_number_of_threads_is_known_everywhere() {
        let details = processor();
        let threads = details.iter().find(|(name, _)| *name == "threads").unwrap();
        assert!(threads.1.parse::<usize>().unwrap() > 0);
    }
}
