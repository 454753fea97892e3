//! Tensors that an operation takes once for each layer, or branch.

use super::{ArgumentInfo, ElementKind, Role};
use crate::error::{Error, Problem};

/// The most layers, or branches, of one operation.
pub const MAX_REPEATED: usize = 8;

/// One tensor for each layer, or branch, of which some may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated<T>([Option<T>; MAX_REPEATED]);

/// The tensors of the first `N` layers; more than [`MAX_REPEATED`] do not compile.
impl<T, const N: usize> From<[T; N]> for Repeated<T> {
    fn from(tensors: [T; N]) -> Repeated<T> {
        const { assert!(N <= MAX_REPEATED, "at most `MAX_REPEATED` tensors") };
        let mut repeated = Repeated::none();
        for (slot, tensor) in repeated.0.iter_mut().zip(tensors) {
            *slot = Some(tensor);
        }
        repeated
    }
}

impl<T> Repeated<T> {
    /// None for any layer.
    pub const fn none() -> Repeated<T> {
        Repeated([const { None }; MAX_REPEATED])
    }

    /// The tensors of the first layers; `op` and `argument` are who asks, for the error.
    ///
    /// # Errors
    /// [`Problem::Size`] if there are more than [`MAX_REPEATED`].
    pub fn try_new(
        op: &'static str,
        argument: &'static str,
        tensors: impl IntoIterator<Item = T>,
    ) -> Result<Repeated<T>, Error> {
        let mut repeated = Repeated::none();
        for (layer, tensor) in tensors.into_iter().enumerate() {
            let Some(slot) = repeated.0.get_mut(layer) else {
                let expected = format!("at most {MAX_REPEATED} tensors");
                return Err(Error::argument(op, argument, Problem::Size, expected, "more", ""));
            };
            *slot = Some(tensor);
        }
        Ok(repeated)
    }

    /// The tensors of the first layers, of which there are not more than [`MAX_REPEATED`].
    #[cfg(feature = "safetensors")]
    pub(crate) fn of_options(tensors: impl IntoIterator<Item = Option<T>>) -> Repeated<T> {
        let mut repeated = Repeated::none();
        for (slot, tensor) in repeated.0.iter_mut().zip(tensors) {
            *slot = tensor;
        }
        repeated
    }

    /// The tensor of a layer, if it has one.
    pub fn get(&self, layer: usize) -> Option<&T> {
        self.0.get(layer)?.as_ref()
    }

    /// For each layer in turn.
    pub fn iter(&self) -> impl Iterator<Item = Option<&T>> {
        self.0.iter().map(Option::as_ref)
    }

    pub(crate) fn as_ref(&self) -> Repeated<&T> {
        Repeated(self.0.each_ref().map(Option::as_ref))
    }

    pub(crate) fn map<To>(self, mut make: impl FnMut(T) -> To) -> Repeated<To> {
        Repeated(self.0.map(|tensor| tensor.map(&mut make)))
    }

    pub(crate) fn collect(
        infos: &'static [ArgumentInfo],
        mut make: impl FnMut(&'static ArgumentInfo) -> Result<Option<T>, Error>,
    ) -> Result<Repeated<T>, Error> {
        let mut repeated = Repeated::none();
        for (slot, info) in repeated.0.iter_mut().zip(infos) {
            *slot = make(info)?;
        }
        Ok(repeated)
    }

    pub(crate) fn visit(
        self,
        infos: &'static [ArgumentInfo],
        mut visitor: impl FnMut(&'static ArgumentInfo, T),
    ) {
        for (tensor, info) in self.0.into_iter().zip(infos) {
            if let Some(tensor) = tensor {
                visitor(info, tensor);
            }
        }
    }

    pub(crate) fn try_map<To>(
        self,
        infos: &'static [ArgumentInfo],
        mut make: impl FnMut(&'static ArgumentInfo, T) -> Result<To, Error>,
    ) -> Result<Repeated<To>, Error> {
        let mut repeated = Repeated::none();
        for ((slot, tensor), info) in repeated.0.iter_mut().zip(self.0).zip(infos) {
            *slot = tensor.map(|tensor| make(info, tensor)).transpose()?;
        }
        Ok(repeated)
    }
}

/// More than any operation has.
const MOST: usize = 128;

const NOTHING: ArgumentInfo = ArgumentInfo {
    name: "",
    pattern: "",
    role: Role::Input,
    optional: true,
    element: ElementKind::Float,
    description: "",
};

/// Every tensor of every field, then nothing.
pub(crate) const fn flatten(fields: &[&[ArgumentInfo]]) -> [ArgumentInfo; MOST] {
    let mut all = [NOTHING; MOST];
    let (mut count, mut field) = (0, 0);
    while field < fields.len() {
        let mut element = 0;
        while element < fields[field].len() {
            all[count] = fields[field][element];
            element += 1;
            count += 1;
        }
        field += 1;
    }
    all
}

/// How many tensors there are.
pub(crate) const fn count(fields: &[&[ArgumentInfo]]) -> usize {
    let (mut count, mut field) = (0, 0);
    while field < fields.len() {
        count += fields[field].len();
        field += 1;
    }
    count
}
