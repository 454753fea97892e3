//! One declaration of an operation's tensors, from which every backend's argument struct follows.

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
    /// Field of the argument struct, tensor in a file.
    pub name: &'static str,
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
    /// Every tensor, in declaration order.
    const INFO: &'static [ArgumentInfo];

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

/// Declares an argument struct: `pub struct Name { role name, ... }` with one of the roles `input`, `output`, `update` or
/// their `optional_` sisters, each with a doc comment. Updated tensors are of the outputs' type. Those that do not hold
/// floating-point numbers say so: `role name: index`, `integer` or `mask`.
macro_rules! arguments {
    (
        $(#[doc = $struct_doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $role:ident $field:ident $(: $element:ident)?, )*
        }
    ) => {
        $(#[doc = $struct_doc])*
        ///
        /// Generic over where the tensors live; optional ones start absent and are set by the method of
        /// their name.
        #[non_exhaustive]
        pub struct $name<In, Out> {
            $( $(#[doc = $doc])+ pub $field: $crate::arguments::arguments!(@type $role In Out), )*
        }

        // By hand, since `derive` does not look through macros in field types.
        impl<In: Clone, Out: Clone> Clone for $name<In, Out> {
            fn clone(&self) -> Self {
                $name { $( $field: self.$field.clone(), )* }
            }
        }

        impl<In: Copy, Out: Copy> Copy for $name<In, Out> {}

        impl<In: std::fmt::Debug, Out: std::fmt::Debug> std::fmt::Debug for $name<In, Out> {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter
                    .debug_struct(stringify!($name))
                    $( .field(stringify!($field), &self.$field) )*
                    .finish()
            }
        }

        $crate::arguments::arguments!(@new $name [] [] $($role $field,)*);

        impl<In, Out> $name<In, Out> {
            $( $crate::arguments::arguments!(@setter $role $field In Out [$($doc)+]); )*

            /// The layouts alone, which is what validation and cost look at.
            pub fn layouts(&self) -> $name<$crate::Layout, $crate::Layout>
            where
                In: $crate::HasLayout,
                Out: $crate::HasLayout,
            {
                #[allow(unused_imports, reason = "used only where a tensor is optional")]
                use $crate::HasLayout as _;
                $name { $( $field: $crate::arguments::arguments!(@layout $role self.$field), )* }
            }

            /// The same set with every tensor replaced by what the closures make of it.
            ///
            /// # Errors
            /// Those of the closures, the first in declaration order.
            #[allow(unused_mut, unused_variables, reason = "an operation may lack one of the roles")]
            pub fn try_map<ToIn, ToOut>(
                self,
                mut input: impl FnMut(
                    &'static $crate::arguments::ArgumentInfo,
                    In,
                ) -> Result<ToIn, $crate::Error>,
                mut output: impl FnMut(
                    &'static $crate::arguments::ArgumentInfo,
                    Out,
                ) -> Result<ToOut, $crate::Error>,
            ) -> Result<$name<ToIn, ToOut>, $crate::Error> {
                let mut infos =
                    <Self as $crate::arguments::Arguments<In, Out>>::INFO.iter();
                $( let $field = {
                    let info = infos.next().expect("one entry for each field");
                    $crate::arguments::arguments!(@map $role info self.$field, input output)
                }; )*
                Ok($name { $($field),* })
            }

            /// The inputs, and the layouts of the outputs: what validation of values looks at.
            pub fn inputs(&self) -> $name<In, $crate::Layout>
            where
                In: Copy,
                Out: $crate::HasLayout,
            {
                #[allow(unused_imports, reason = "used only where there is an output")]
                use $crate::HasLayout as _;
                $name { $( $field: $crate::arguments::arguments!(@value $role self.$field), )* }
            }
        }

        impl<In, Out> $crate::arguments::Arguments<In, Out> for $name<In, Out> {
            const INFO: &'static [$crate::arguments::ArgumentInfo] = &[
                $( $crate::arguments::ArgumentInfo {
                    name: stringify!($field),
                    role: $crate::arguments::arguments!(@role $role),
                    optional: $crate::arguments::arguments!(@optional $role),
                    element: $crate::arguments::arguments!(@element $($element)?),
                    description: concat!($($doc),+).trim_ascii(),
                }, )*
            ];

            #[allow(unused_mut, unused_variables, reason = "an operation may lack one of the roles")]
            fn collect(
                op: &'static str,
                mut input: impl FnMut(
                    &'static $crate::arguments::ArgumentInfo,
                ) -> Result<Option<In>, $crate::Error>,
                mut output: impl FnMut(
                    &'static $crate::arguments::ArgumentInfo,
                ) -> Result<Option<Out>, $crate::Error>,
            ) -> Result<Self, $crate::Error> {
                let mut infos = <Self as $crate::arguments::Arguments<In, Out>>::INFO.iter();
                $( let $field = {
                    let info = infos.next().expect("one entry for each field");
                    $crate::arguments::arguments!(@collect $role op info input output)
                }; )*
                Ok($name { $($field),* })
            }

            #[allow(unused_mut, unused_variables, reason = "an operation may lack one of the roles")]
            fn visit(
                self,
                mut input: impl FnMut(&'static $crate::arguments::ArgumentInfo, In),
                mut output: impl FnMut(&'static $crate::arguments::ArgumentInfo, Out),
            ) {
                let mut infos = <Self as $crate::arguments::Arguments<In, Out>>::INFO.iter();
                $(
                    let info = infos.next().expect("one entry for each field");
                    $crate::arguments::arguments!(@visit $role info self.$field, input output);
                )*
            }
        }
    };

    (@type input $In:ident $Out:ident) => { $In };
    (@type optional_input $In:ident $Out:ident) => { Option<$In> };
    (@type output $In:ident $Out:ident) => { $Out };
    (@type optional_output $In:ident $Out:ident) => { Option<$Out> };

    (@role input) => { $crate::arguments::Role::Input };
    (@role optional_input) => { $crate::arguments::Role::Input };
    (@role output) => { $crate::arguments::Role::Output };
    (@role optional_output) => { $crate::arguments::Role::Output };
    (@role update) => { $crate::arguments::Role::Update };
    (@role optional_update) => { $crate::arguments::Role::Update };

    (@element) => { $crate::arguments::ElementKind::Float };
    (@element index) => { $crate::arguments::ElementKind::Index };
    (@element integer) => { $crate::arguments::ElementKind::Integer };
    (@element mask) => { $crate::arguments::ElementKind::Mask };

    (@optional input) => { false };
    (@optional optional_input) => { true };
    (@optional output) => { false };
    (@optional optional_output) => { true };

    (@layout input $value:expr) => { $value.layout() };
    (@layout output $value:expr) => { $value.layout() };
    (@layout optional_input $value:expr) => { $value.as_ref().map(|tensor| tensor.layout()) };
    (@layout optional_output $value:expr) => { $value.as_ref().map(|tensor| tensor.layout()) };

    (@value input $value:expr) => { $value };
    (@value optional_input $value:expr) => { $value };
    (@value output $value:expr) => { $value.layout() };
    (@value optional_output $value:expr) => { $value.as_ref().map(|tensor| tensor.layout()) };

    (@collect input $op:ident $info:ident $input:ident $output:ident) => {
        $crate::arguments::require($op, $info, $input($info)?)?
    };
    (@collect optional_input $op:ident $info:ident $input:ident $output:ident) => { $input($info)? };
    (@collect output $op:ident $info:ident $input:ident $output:ident) => {
        $crate::arguments::require($op, $info, $output($info)?)?
    };
    (@collect optional_output $op:ident $info:ident $input:ident $output:ident) => { $output($info)? };

    (@visit input $info:ident $value:expr, $input:ident $output:ident) => { $input($info, $value) };
    (@visit output $info:ident $value:expr, $input:ident $output:ident) => { $output($info, $value) };
    (@visit optional_input $info:ident $value:expr, $input:ident $output:ident) => {
        if let Some(tensor) = $value {
            $input($info, tensor);
        }
    };
    (@visit optional_output $info:ident $value:expr, $input:ident $output:ident) => {
        if let Some(tensor) = $value {
            $output($info, tensor);
        }
    };

    (@map input $info:ident $value:expr, $input:ident $output:ident) => { $input($info, $value)? };
    (@map output $info:ident $value:expr, $input:ident $output:ident) => { $output($info, $value)? };
    (@map optional_input $info:ident $value:expr, $input:ident $output:ident) => {
        $value.map(|tensor| $input($info, tensor)).transpose()?
    };
    (@map optional_output $info:ident $value:expr, $input:ident $output:ident) => {
        $value.map(|tensor| $output($info, tensor)).transpose()?
    };

    (@setter input $field:ident $In:ident $Out:ident [$($doc:literal)+]) => {};
    (@setter output $field:ident $In:ident $Out:ident [$($doc:literal)+]) => {};
    (@setter optional_input $field:ident $In:ident $Out:ident [$($doc:literal)+]) => {
        $(#[doc = $doc])+
        #[must_use]
        pub fn $field(mut self, tensor: $In) -> Self {
            self.$field = Some(tensor);
            self
        }
    };
    (@setter optional_output $field:ident $In:ident $Out:ident [$($doc:literal)+]) => {
        $(#[doc = $doc])+
        #[must_use]
        pub fn $field(mut self, tensor: $Out) -> Self {
            self.$field = Some(tensor);
            self
        }
    };

    // But for its role, what is updated is an output.
    (@$rule:ident update $($rest:tt)*) => { $crate::arguments::arguments! { @$rule output $($rest)* } };
    (@$rule:ident optional_update $($rest:tt)*) => {
        $crate::arguments::arguments! { @$rule optional_output $($rest)* }
    };

    // Walks the fields once: the first list becomes `new`'s parameters, the second its body.
    (@new $name:ident [$($parameter:tt)*] [$($body:tt)*]) => {
        impl<In, Out> $name<In, Out> {
            /// The required tensors; optional ones are absent.
            #[allow(clippy::too_many_arguments, reason = "as many as there are required tensors")]
            pub fn new($($parameter)*) -> Self {
                $name { $($body)* }
            }
        }
    };
    (@new $name:ident [$($p:tt)*] [$($b:tt)*] input $field:ident, $($rest:tt)*) => {
        $crate::arguments::arguments!(@new $name [$($p)* $field: In,] [$($b)* $field,] $($rest)*);
    };
    (@new $name:ident [$($p:tt)*] [$($b:tt)*] output $field:ident, $($rest:tt)*) => {
        $crate::arguments::arguments!(@new $name [$($p)* $field: Out,] [$($b)* $field,] $($rest)*);
    };
    (@new $name:ident [$($p:tt)*] [$($b:tt)*] update $field:ident, $($rest:tt)*) => {
        $crate::arguments::arguments!(@new $name [$($p)*] [$($b)*] output $field, $($rest)*);
    };
    (@new $name:ident [$($p:tt)*] [$($b:tt)*] optional_update $field:ident, $($rest:tt)*) => {
        $crate::arguments::arguments!(@new $name [$($p)*] [$($b)*] optional_output $field, $($rest)*);
    };
    (@new $name:ident [$($p:tt)*] [$($b:tt)*] optional_input $field:ident, $($rest:tt)*) => {
        $crate::arguments::arguments!(@new $name [$($p)*] [$($b)* $field: None,] $($rest)*);
    };
    (@new $name:ident [$($p:tt)*] [$($b:tt)*] optional_output $field:ident, $($rest:tt)*) => {
        $crate::arguments::arguments!(@new $name [$($p)*] [$($b)* $field: None,] $($rest)*);
    };
}
pub(crate) use arguments;

#[cfg(test)]
mod tests {
    use super::{Arguments, ElementKind, Role};
    use crate::dtype::DType;
    use crate::layout::Layout;

    arguments! {
        /// Every kind of element.
        pub struct Kinds {
            /// Floating-point.
            input values,
            /// Positions.
            input rows: index,
            /// Ids.
            optional_input ids: integer,
            /// Chosen or not.
            optional_output mask: mask,
            /// Counts up.
            update state,
            /// Likewise.
            optional_update rest: integer,
        }
    }

    #[test]
    fn optional_tensors_are_set_by_name() {
        let layout = |shape: &[usize]| Layout::contiguous(DType::F32, shape).unwrap();
        let kinds = Kinds::new(layout(&[1]), layout(&[2]), layout(&[5]));
        assert!(kinds.ids.is_none() && kinds.mask.is_none() && kinds.rest.is_none());
        let kinds = kinds.ids(layout(&[3])).mask(layout(&[4])).rest(layout(&[6]));
        let (layouts, inputs) = (kinds.layouts(), kinds.inputs());
        assert_eq!((layouts.ids, layouts.mask), (Some(layout(&[3])), Some(layout(&[4]))));
        assert_eq!((inputs.ids, inputs.mask), (layouts.ids, layouts.mask));
        let lengths = kinds.try_map(
            |_, layout| Ok(layout.elements()),
            |info, layout| match layout.elements() {
                0 => crate::arguments::require("op", info, None),
                length => Ok(length),
            },
        );
        let lengths = lengths.unwrap();
        assert_eq!((lengths.rows, lengths.ids, lengths.mask), (2, Some(3), Some(4)));
        assert_eq!((lengths.state, lengths.rest), (5, Some(6)));
    }

    #[test]
    fn kinds_of_elements_are_declared_beside_the_name() {
        let kinds = <Kinds<(), ()> as Arguments<(), ()>>::INFO.iter();
        let kinds: Vec<_> = kinds.map(|info| (info.name, info.element)).collect();
        let expected = [
            ("values", ElementKind::Float),
            ("rows", ElementKind::Index),
            ("ids", ElementKind::Integer),
            ("mask", ElementKind::Mask),
            ("state", ElementKind::Float),
            ("rest", ElementKind::Integer),
        ];
        assert_eq!(kinds, expected);
        let roles = <Kinds<(), ()> as Arguments<(), ()>>::INFO.iter().map(|info| info.role);
        let given: Vec<bool> = roles.map(Role::is_given).collect();
        assert_eq!(given, [true, true, true, false, true, true]);
    }
}
