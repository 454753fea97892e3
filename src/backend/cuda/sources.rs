//! The kernels as they are embedded in the crate.

/// One `.cu` file with everything that it includes.
#[derive(Debug)]
pub(crate) struct Source {
    /// `family/file`, without the extension.
    pub name: &'static str,
    /// The text of the file.
    pub text: &'static str,
    /// Headers by the bare name that sources include them with.
    pub headers: &'static [(&'static str, &'static str)],
    /// Images compiled ahead of time, by architecture: `80`, `90a`.
    pub images: &'static [(&'static str, &'static [u8])],
}

include!(concat!(env!("OUT_DIR"), "/cuda_sources.rs"));

/// The source of this name.
pub(crate) fn find(name: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|source| source.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_comes_with_the_headers_that_it_names() {
        assert!(find("silu_mlp/silu_mul").is_some());
        assert!(find("silu_mlp/unheard_of").is_none());
        for source in SOURCES {
            let texts = source.headers.iter().map(|(_, text)| *text).chain([source.text]);
            for included in texts.flat_map(includes) {
                let known = source.headers.iter().any(|(name, _)| *name == included);
                let only_elsewhere = ["simulator.hpp", "stdint.h"].contains(&included);
                assert!(known || only_elsewhere, "{}: {included}", source.name);
            }
        }
    }

    fn includes(text: &'static str) -> impl Iterator<Item = &'static str> {
        text.lines().filter_map(|line| {
            let name = line.trim().strip_prefix("#include")?.trim();
            Some(name.trim_matches(['"', '<', '>']))
        })
    }
}
