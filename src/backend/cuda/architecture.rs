//! What a kernel is compiled for.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Problem};

/// What an image of a kernel is made for, as nvcc spells it: `sm_80`, `sm_90a`, or `compute_90` for PTX that
/// the driver compiles further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Architecture {
    number: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Machine code for this and later minor versions.
    Binary,
    /// Machine code with features of exactly this architecture.
    Specific,
    /// PTX.
    Virtual,
}

impl Architecture {
    /// The best architecture for a device that a compiler knows.
    ///
    /// Machine code for the device itself, else for an earlier minor version, else PTX for an earlier
    /// device. `known` lists what the compiler knows, `None` if it cannot tell.
    pub(crate) fn best(device: (u32, u32), known: Option<&[u32]>) -> Option<Architecture> {
        let native = device.0 * 10 + device.1;
        let latest = |fits: &dyn Fn(u32) -> bool| {
            known.and_then(|known| known.iter().copied().filter(|&number| fits(number)).max())
        };
        if known.is_none_or(|known| known.contains(&native)) {
            // wgmma and the rest of sm_90a exist on no other device.
            let kind = if native == 90 { Kind::Specific } else { Kind::Binary };
            Some(Architecture { number: native, kind })
        } else if let Some(number) = latest(&|number| number < native && number / 10 == device.0) {
            Some(Architecture { number, kind: Kind::Binary })
        } else {
            let number = latest(&|number| number < native)?;
            Some(Architecture { number, kind: Kind::Virtual })
        }
    }

    /// How well machine code for this architecture fits a device; `None` if it does not run there.
    pub(crate) fn fitness(self, device: (u32, u32)) -> Option<u32> {
        let native = device.0 * 10 + device.1;
        match self.kind {
            Kind::Specific => (self.number == native).then_some(u32::MAX),
            Kind::Binary => {
                (self.number / 10 == device.0 && self.number <= native).then_some(self.number)
            }
            Kind::Virtual => None,
        }
    }

    pub(crate) fn is_specific(self) -> bool {
        self.kind == Kind::Specific
    }

    pub(crate) fn is_virtual(self) -> bool {
        self.kind == Kind::Virtual
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Binary => write!(formatter, "sm_{}", self.number),
            Kind::Specific => write!(formatter, "sm_{}a", self.number),
            Kind::Virtual => write!(formatter, "compute_{}", self.number),
        }
    }
}

impl FromStr for Architecture {
    type Err = Error;

    /// Understands `80`, `sm_80`, `90a`, `sm_90a` and `compute_80`.
    fn from_str(text: &str) -> Result<Architecture, Error> {
        let (digits, is_virtual) = match text.strip_prefix("compute_") {
            Some(digits) => (digits, true),
            None => (text.strip_prefix("sm_").unwrap_or(text), false),
        };
        let (digits, kind) = match digits.strip_suffix('a') {
            _ if is_virtual => (digits, Kind::Virtual),
            Some(digits) => (digits, Kind::Specific),
            None => (digits, Kind::Binary),
        };
        match digits.parse() {
            Ok(number) => Ok(Architecture { number, kind }),
            Err(_) => {
                let expected = "such as sm_80, sm_90a or compute_80";
                Err(Error::argument("cuda", "architecture", Problem::Value, expected, text, ""))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_make_the_closest_thing_that_they_know() {
        let best = |device, known: Option<&[u32]>| {
            Architecture::best(device, known).map(|architecture| architecture.to_string())
        };
        let nvrtc_12_6 = [50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90];
        for (device, expected) in [
            ((7, 5), "sm_75"),
            ((8, 0), "sm_80"),
            ((8, 8), "sm_87"),
            ((8, 9), "sm_89"),
            ((9, 0), "sm_90a"),
            ((12, 0), "compute_90"),
        ] {
            assert_eq!(best(device, Some(&nvrtc_12_6)).as_deref(), Some(expected));
        }
        assert_eq!(best((8, 6), None).as_deref(), Some("sm_86"));
        assert_eq!(best((7, 5), Some(&[80, 90])), None);
    }

    #[test]
    fn images_run_on_their_own_device_and_later_minor_versions() {
        let fitness = |text: &str, device| text.parse::<Architecture>().unwrap().fitness(device);
        assert!(fitness("90a", (9, 0)) > fitness("90", (9, 0)));
        assert!(fitness("86", (8, 9)) > fitness("80", (8, 9)));
        for (text, device) in
            [("86", (8, 0)), ("90a", (10, 0)), ("80", (9, 0)), ("compute_80", (8, 0))]
        {
            assert_eq!(fitness(text, device), None, "{text}");
        }
        assert!("sm_".parse::<Architecture>().is_err());
    }
}
