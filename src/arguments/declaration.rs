//! The macro that declares an operation's tensors.

/// Declares an argument struct: `pub struct Name { role name, ... }` with one of the roles `input`, `output`, `update` or
/// their `optional_` sisters, each with a doc comment. Updated tensors are of the outputs' type. Those that do not hold
/// floating-point numbers say so: `role name: index`, `integer` or `mask`. A `repeated_input` is there once a layer, or
/// branch, and says what stands before and behind its number: `repeated_input weight as "layer" ".weight"`.
macro_rules! arguments {
    (
        $(#[doc = $struct_doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $role:ident $field:ident $(: $element:ident)? $(as $prefix:literal $suffix:literal)?, )*
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
                let mut fields =
                    <Self as $crate::arguments::Arguments<In, Out>>::FIELDS.iter();
                $( let $field = {
                    let info = *fields.next().expect("one entry for each field");
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
            const FIELDS: &'static [&'static [$crate::arguments::ArgumentInfo]] = &[
                $( {
                    const FIELD: $crate::arguments::ArgumentInfo = $crate::arguments::ArgumentInfo {
                        name: stringify!($field),
                        pattern: $crate::arguments::arguments!(@pattern $field $($prefix $suffix)?),
                        role: $crate::arguments::arguments!(@role $role),
                        optional: $crate::arguments::arguments!(@optional $role),
                        element: $crate::arguments::arguments!(@element $($element)?),
                        description: concat!($($doc),+).trim_ascii(),
                    };
                    $crate::arguments::arguments!(@field FIELD $($prefix $suffix)?)
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
                let mut fields = <Self as $crate::arguments::Arguments<In, Out>>::FIELDS.iter();
                $( let $field = {
                    let info = *fields.next().expect("one entry for each field");
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
                let mut fields = <Self as $crate::arguments::Arguments<In, Out>>::FIELDS.iter();
                $(
                    let info = *fields.next().expect("one entry for each field");
                    $crate::arguments::arguments!(@visit $role info self.$field, input output);
                )*
            }
        }
    };

    (@type input $In:ident $Out:ident) => { $In };
    (@type optional_input $In:ident $Out:ident) => { Option<$In> };
    (@type repeated_input $In:ident $Out:ident) => { $crate::arguments::Repeated<$In> };
    (@type output $In:ident $Out:ident) => { $Out };
    (@type optional_output $In:ident $Out:ident) => { Option<$Out> };

    (@role input) => { $crate::arguments::Role::Input };
    (@role optional_input) => { $crate::arguments::Role::Input };
    (@role repeated_input) => { $crate::arguments::Role::Input };
    (@role output) => { $crate::arguments::Role::Output };
    (@role optional_output) => { $crate::arguments::Role::Output };
    (@role update) => { $crate::arguments::Role::Update };
    (@role optional_update) => { $crate::arguments::Role::Update };

    (@element) => { $crate::arguments::ElementKind::Float };
    (@element index) => { $crate::arguments::ElementKind::Index };
    (@element integer) => { $crate::arguments::ElementKind::Integer };
    (@element mask) => { $crate::arguments::ElementKind::Mask };

    (@pattern $field:ident) => { stringify!($field) };
    (@pattern $field:ident $prefix:literal $suffix:literal) => { concat!($prefix, "{k}", $suffix) };

    (@field $info:ident) => { &[$info] };
    (@field $info:ident $prefix:literal $suffix:literal) => {
        $crate::arguments::arguments!(@numbered $info $prefix $suffix [0 1 2 3 4 5 6 7])
    };
    (@numbered $info:ident $prefix:literal $suffix:literal [$($number:literal)*]) => {
        &[$( $crate::arguments::ArgumentInfo { name: concat!($prefix, $number, $suffix), ..$info } ),*]
    };

    (@optional input) => { false };
    (@optional optional_input) => { true };
    (@optional repeated_input) => { true };
    (@optional output) => { false };
    (@optional optional_output) => { true };

    (@layout input $value:expr) => { $value.layout() };
    (@layout output $value:expr) => { $value.layout() };
    (@layout optional_input $value:expr) => { $value.as_ref().map(|tensor| tensor.layout()) };
    (@layout repeated_input $value:expr) => { $value.as_ref().map(|tensor| tensor.layout()) };
    (@layout optional_output $value:expr) => { $value.as_ref().map(|tensor| tensor.layout()) };

    (@value input $value:expr) => { $value };
    (@value optional_input $value:expr) => { $value };
    (@value repeated_input $value:expr) => { $value };
    (@value output $value:expr) => { $value.layout() };
    (@value optional_output $value:expr) => { $value.as_ref().map(|tensor| tensor.layout()) };

    (@collect input $op:ident $info:ident $input:ident $output:ident) => {
        $crate::arguments::require($op, &$info[0], $input(&$info[0])?)?
    };
    (@collect optional_input $op:ident $info:ident $input:ident $output:ident) => { $input(&$info[0])? };
    (@collect repeated_input $op:ident $info:ident $input:ident $output:ident) => {
        $crate::arguments::Repeated::collect($info, &mut $input)?
    };
    (@collect output $op:ident $info:ident $input:ident $output:ident) => {
        $crate::arguments::require($op, &$info[0], $output(&$info[0])?)?
    };
    (@collect optional_output $op:ident $info:ident $input:ident $output:ident) => { $output(&$info[0])? };

    (@visit input $info:ident $value:expr, $input:ident $output:ident) => { $input(&$info[0], $value) };
    (@visit output $info:ident $value:expr, $input:ident $output:ident) => { $output(&$info[0], $value) };
    (@visit optional_input $info:ident $value:expr, $input:ident $output:ident) => {
        if let Some(tensor) = $value {
            $input(&$info[0], tensor);
        }
    };
    (@visit repeated_input $info:ident $value:expr, $input:ident $output:ident) => {
        $value.visit($info, &mut $input);
    };
    (@visit optional_output $info:ident $value:expr, $input:ident $output:ident) => {
        if let Some(tensor) = $value {
            $output(&$info[0], tensor);
        }
    };

    (@map input $info:ident $value:expr, $input:ident $output:ident) => { $input(&$info[0], $value)? };
    (@map output $info:ident $value:expr, $input:ident $output:ident) => { $output(&$info[0], $value)? };
    (@map optional_input $info:ident $value:expr, $input:ident $output:ident) => {
        $value.map(|tensor| $input(&$info[0], tensor)).transpose()?
    };
    (@map repeated_input $info:ident $value:expr, $input:ident $output:ident) => {
        $value.try_map($info, &mut $input)?
    };
    (@map optional_output $info:ident $value:expr, $input:ident $output:ident) => {
        $value.map(|tensor| $output(&$info[0], tensor)).transpose()?
    };

    (@setter input $field:ident $In:ident $Out:ident [$($doc:literal)+]) => {};
    (@setter output $field:ident $In:ident $Out:ident [$($doc:literal)+]) => {};
    (@setter repeated_input $field:ident $In:ident $Out:ident [$($doc:literal)+]) => {
        $(#[doc = $doc])+
        #[must_use]
        pub fn $field(mut self, tensors: $crate::arguments::Repeated<$In>) -> Self {
            self.$field = tensors;
            self
        }
    };
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
    (@new $name:ident [$($p:tt)*] [$($b:tt)*] repeated_input $field:ident, $($rest:tt)*) => {
        $crate::arguments::arguments!(
            @new $name [$($p)*] [$($b)* $field: $crate::arguments::Repeated::none(),] $($rest)*
        );
    };
    (@new $name:ident [$($p:tt)*] [$($b:tt)*] optional_output $field:ident, $($rest:tt)*) => {
        $crate::arguments::arguments!(@new $name [$($p)*] [$($b)* $field: None,] $($rest)*);
    };
}
pub(crate) use arguments;

#[cfg(test)]
mod tests {
    use crate::arguments::{Arguments, ElementKind, MAX_REPEATED, Repeated, Role};
    use crate::dtype::DType;
    use crate::error::Problem;
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
            /// One a layer.
            repeated_input weights as "layer" ".weight",
        }
    }

    #[test]
    fn optional_tensors_are_set_by_name() {
        let layout = |shape: &[usize]| Layout::contiguous(DType::F32, shape).unwrap();
        let kinds = Kinds::new(layout(&[1]), layout(&[2]), layout(&[5]));
        assert!(kinds.ids.is_none() && kinds.mask.is_none() && kinds.rest.is_none());
        let kinds = kinds.ids(layout(&[3])).mask(layout(&[4])).rest(layout(&[6]));
        let kinds = kinds.weights(Repeated::from([layout(&[7]); 2]));
        assert_eq!(kinds.layouts().weights.get(1), Some(&layout(&[7])));
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
            ("layer0.weight", ElementKind::Float),
        ];
        assert_eq!(kinds[..7], expected);
        let infos = <Kinds<(), ()> as Arguments<(), ()>>::INFO.iter();
        let given: Vec<bool> = infos.map(|info| info.role.is_given()).take(7).collect();
        assert_eq!(given, [true, true, true, false, true, true, true]);
    }

    #[test]
    fn repeated_tensors_have_a_name_each_and_keep_their_place() {
        let infos = <Kinds<(), ()> as Arguments<(), ()>>::INFO;
        assert_eq!(infos.len(), 6 + MAX_REPEATED);
        assert_eq!((infos[13].name, infos[13].pattern), ("layer7.weight", "layer{k}.weight"));
        assert_eq!((infos[13].role, infos[13].optional), (Role::Input, true));
        let layout = |length| Layout::contiguous(DType::F32, &[length]).unwrap();
        let input = |info: &crate::arguments::ArgumentInfo| match info.name {
            "layer0.weight" => Ok(Some(layout(10))),
            "layer2.weight" => Ok(Some(layout(12))),
            name if name.starts_with("layer") => Ok(None),
            _ => Ok(Some(layout(1))),
        };
        let kinds = Kinds::collect("op", input, |_| Ok(Some(layout(2)))).unwrap();
        let lengths: Vec<_> =
            kinds.layouts().weights.iter().map(|layout| layout.map(Layout::elements)).collect();
        assert_eq!(lengths[..4], [Some(10), None, Some(12), None]);
        let mut seen = Vec::new();
        let named = kinds.try_map(|info, _| Ok(info.name), |info, _| Ok(info.name)).unwrap();
        named.visit(|info, name| seen.push((info.name, name)), |_, _| {});
        assert!(seen.iter().all(|(name, mapped)| name == mapped), "{seen:?}");
        assert_eq!(
            seen[3..],
            [("layer0.weight", "layer0.weight"), ("layer2.weight", "layer2.weight")]
        );
    }

    #[test]
    fn more_layers_than_there_is_room_for_are_an_error() {
        assert_eq!(Repeated::from([1, 2]).get(1), Some(&2));
        let repeated = Repeated::try_new("op", "weights", 0..MAX_REPEATED).unwrap();
        assert_eq!(repeated.get(MAX_REPEATED - 1), Some(&(MAX_REPEATED - 1)));
        let error = Repeated::try_new("op", "weights", 0..=MAX_REPEATED).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Size));
    }
}
