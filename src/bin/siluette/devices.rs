//! The devices of the backends that were asked for, or why they are not there.

use serde_json::{Map, Value, json};
use siluette::{Backend, Device, Error};

use crate::selection::Selection;

/// A backend's device on this machine.
pub struct Opened {
    pub backend: Backend,
    pub device: Result<Device, Error>,
}

/// Opens the best device of each backend.
pub fn open(selection: &Selection) -> Vec<Opened> {
    selection.backends().map(|backend| Opened { backend, device: Device::open(backend) }).collect()
}

/// Whether the environment variable `SILUETTE_REQUIRE` (`wgpu,cuda`, say) names this.
pub fn is_required(name: &str) -> bool {
    is_listed(&std::env::var("SILUETTE_REQUIRE").unwrap_or_default(), name)
}

fn is_listed(list: &str, name: &str) -> bool {
    list.split(',').any(|word| word.trim() == name)
}

impl Opened {
    /// Whether the backend is missing although it is required.
    pub fn is_required_but_missing(&self) -> bool {
        self.device.is_err() && is_required(self.backend.name())
    }

    /// Name and details, or the reason why there is none.
    pub fn to_json(&self) -> Value {
        match &self.device {
            Ok(device) => {
                let details: Map<String, Value> = device
                    .details()
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into()))
                    .collect();
                json!({ "available": true, "name": device.name(), "details": details })
            }
            Err(error) => json!({ "available": false, "reason": error.to_string() }),
        }
    }
}

/// An object with one member a backend.
pub fn to_json(devices: &[Opened]) -> Value {
    devices
        .iter()
        .map(|opened| (opened.backend.name().to_owned(), opened.to_json()))
        .collect::<Map<String, Value>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_whole_words_between_commas() {
        assert!(is_listed("wgpu, cuda", "cuda") && is_listed("wgpu", "wgpu"));
        assert!(!is_listed("", "cuda") && !is_listed("cudart", "cuda"));
        assert!(!is_listed("wgpu cuda", "cuda"));
    }

    #[test]
    fn a_missing_backend_says_why() {
        let error = Error::Unavailable {
            backend: Backend::Cuda,
            reason: "no driver".into(),
            remedy: "install it".into(),
        };
        let opened = Opened { backend: Backend::Cuda, device: Err(error) };
        let json = opened.to_json();
        assert_eq!(json["available"], false);
        assert_eq!(json["reason"], "cuda: no driver (install it)");
    }
}
