//! Which backends must be there.

use siluette::{Backend, Device, Error};

/// Whether the environment variable `SILUETTE_REQUIRE` (`wgpu,cuda`, say) names this requirement.
pub fn is_required(name: &str) -> bool {
    let required = std::env::var("SILUETTE_REQUIRE").unwrap_or_default();
    required.split(',').any(|word| word.trim() == name)
}

/// The backend's device, or `None`, said aloud, if this machine has none and none is required.
pub fn open(backend: Backend) -> Option<Device> {
    match Device::open(backend) {
        Ok(device) => Some(device),
        Err(error @ Error::Unavailable { .. }) if !is_required(backend.name()) => {
            println!("NOT RUN: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
