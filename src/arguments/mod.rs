//! One declaration of an operation's tensors, from which every backend's argument struct follows.

mod declaration;
mod repeated;

pub(crate) use declaration::arguments;
pub(crate) use repeated::flatten;
pub use repeated::{MAX_REPEATED, Repeated};

use crate::error::{Error, Problem};

/// Whether a tensor is read, written, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Read.
    Input,
    /// Written; never read.
    Output,
    /// Read and written: a launch changes some of it in place.
    Update,
}

impl Role {
    /// Whether the caller brings the contents.
    pub fn is_given(self) -> bool {
        self != Role::Output
    }
}

/// What a tensor's elements mean, which decides the types that they may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementKind {
    /// Activations, weights, statistics: f32, f16 or bf16.
    Float,
    /// Positions in another tensor: u32.
    Index,
    /// Signed numbers, such as token ids: i32.
    Integer,
    /// Zero or not: u8.
    Mask,
}

/// A tensor of an operation, as documented and as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArgumentInfo {
    /// Tensor in a file; field of the argument struct, unless the field is [`Repeated`].
    pub name: &'static str,
    /// The name, with `{k}` for the number of a repeated tensor: one line of a listing.
    pub pattern: &'static str,
    /// What is done with it.
    pub role: Role,
    /// Whether it may be left out.
    pub optional: bool,
    /// What its elements mean.
    pub element: ElementKind,
    /// Shape and meaning.
    pub description: &'static str,
}

/// A set of tensors, generic over where they live: the structs that [`crate::ops`] declares.
pub trait Arguments<In, Out>: Sized {
    /// The tensors of each field, in declaration order: [`MAX_REPEATED`] of a repeated one, otherwise one.
    const FIELDS: &'static [&'static [ArgumentInfo]];

    /// Every tensor, in declaration order.
    const INFO: &'static [ArgumentInfo] =
        const { flatten(Self::FIELDS) }.split_at(repeated::count(Self::FIELDS)).0;

    /// Builds the set by asking for each tensor by name.
    ///
    /// # Errors
    /// [`Problem::Missing`] if a required tensor is `None`, and whatever the closures return.
    fn collect(
        op: &'static str,
        input: impl FnMut(&'static ArgumentInfo) -> Result<Option<In>, Error>,
        output: impl FnMut(&'static ArgumentInfo) -> Result<Option<Out>, Error>,
    ) -> Result<Self, Error>;

    /// Takes the set apart, in declaration order; absent tensors are passed over.
    fn visit(
        self,
        input: impl FnMut(&'static ArgumentInfo, In),
        output: impl FnMut(&'static ArgumentInfo, Out),
    );
}

pub(crate) fn require<T>(
    op: &'static str,
    info: &'static ArgumentInfo,
    value: Option<T>,
) -> Result<T, Error> {
    value.ok_or_else(|| {
        Error::argument(op, info.name, Problem::Missing, "a tensor", "none", info.description)
    })
}
