//! wgpu's errors as ours: uncaptured, they would panic.

use crate::error::{Backend, Error};

/// Runs `create` with wgpu's errors caught.
pub(super) fn scoped<T>(
    device: &wgpu::Device,
    action: &str,
    create: impl FnOnce() -> T,
) -> Result<T, Error> {
    let filters = [
        wgpu::ErrorFilter::Validation,
        wgpu::ErrorFilter::OutOfMemory,
        wgpu::ErrorFilter::Internal,
    ];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let value = create();
    let mut caught = None;
    // Scopes close in reverse order.
    for scope in scopes.into_iter().rev() {
        caught = pollster::block_on(scope.pop()).or(caught);
    }
    match caught {
        None => Ok(value),
        Some(error) => Err(device_error(action, error)),
    }
}

pub(super) fn device_error(action: &str, message: impl std::fmt::Display) -> Error {
    Error::Device { backend: Backend::Wgpu, action: action.into(), message: message.to_string() }
}
