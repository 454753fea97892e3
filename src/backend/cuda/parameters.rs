//! The structs that kernels take, as the host sees them.

#[cfg(test)]
use super::tensor_map::TensorMap;

/// A kernel's parameter struct, with the list of its fields as the kernel's header declares them.
pub(crate) trait KernelParameters: Copy {
    /// Name of the struct.
    #[cfg(test)]
    const NAME: &'static str;
    /// C types and names, in order.
    #[cfg(test)]
    const FIELDS: &'static [(&'static str, &'static str)];
}

/// A pointer that the kernel reads through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct ReadPointer(pub u64);

/// A pointer that the kernel writes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct WritePointer(pub u64);

/// The C spelling of a field's type.
#[cfg(test)]
pub(crate) trait CType {
    const C_TYPE: &'static str;
}

macro_rules! c_types {
    ($($rust:ty => $c:literal),* $(,)?) => {$(
        #[cfg(test)]
        impl CType for $rust { const C_TYPE: &'static str = $c; }
    )*};
}

c_types!(
    TensorMap => "TensorMap",
    ReadPointer => "const void*",
    WritePointer => "void*",
    i64 => "int64_t",
    i32 => "int32_t",
    f32 => "float",
);

/// Declares a `#[repr(C)]` struct together with its [`KernelParameters`].
macro_rules! kernel_parameters {
    ($(
        $(#[$attribute:meta])*
        pub(crate) struct $name:ident { $(pub $field:ident: $type:ty,)* }
    )*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub(crate) struct $name { $(pub $field: $type,)* }

        impl $crate::backend::cuda::parameters::KernelParameters for $name {
            #[cfg(test)]
            const NAME: &'static str = stringify!($name);
            #[cfg(test)]
            const FIELDS: &'static [(&'static str, &'static str)] = &[$(
                (<$type as $crate::backend::cuda::parameters::CType>::C_TYPE, stringify!($field)),
            )*];
        }
    )*};
}
pub(crate) use kernel_parameters;

/// The C types and names of a struct in a header that declares one field a line.
#[cfg(test)]
pub(crate) fn fields_in_header(header: &str, name: &str) -> Option<Vec<(String, String)>> {
    let opening = format!("struct {name} {{");
    let body = header.lines().skip_while(|line| line.trim() != opening).skip(1);
    let mut fields = Vec::new();
    for line in body {
        if line.trim() == "};" {
            return Some(fields);
        }
        let code = line.split("//").next().unwrap_or_default().trim();
        if let Some((c_type, field)) = code.trim_end_matches(';').rsplit_once(' ') {
            fields.push((c_type.to_owned(), field.to_owned()));
        }
    }
    None
}

/// That a struct is what the header says.
#[cfg(test)]
pub(crate) fn assert_matches_header<P: KernelParameters>(header: &str) {
    let declared = fields_in_header(header, P::NAME).unwrap_or_else(|| panic!("no {}", P::NAME));
    let ours: Vec<(String, String)> =
        P::FIELDS.iter().map(|(c_type, name)| ((*c_type).into(), (*name).into())).collect();
    assert_eq!(ours, declared, "{}", P::NAME);
}

#[cfg(test)]
mod tests {
    use super::*;

    kernel_parameters! {
        pub(crate) struct Sample {
            pub x: ReadPointer,
            pub y: WritePointer,
            pub rows: i32,
        }
    }

    #[test]
    fn drift_between_header_and_struct_is_noticed() {
        let header =
            "struct Sample {\n  const void* x; // read\n\n  void* y;\n  int32_t rows;\n};\n";
        assert_matches_header::<Sample>(header);
        for drift in [
            header.replace("rows", "columns"),
            header.replace("int32_t", "int64_t"),
            header.replace("  int32_t rows;\n", ""),
            header.replace("const void* x", "void* x"),
            header.replace("Sample", "Other"),
        ] {
            assert!(std::panic::catch_unwind(|| assert_matches_header::<Sample>(&drift)).is_err());
        }
        let sample = Sample { x: ReadPointer(1), y: WritePointer(2), rows: 3 };
        assert_eq!((sample.x.0, sample.y.0, sample.rows), (1, 2, 3));
    }
}
