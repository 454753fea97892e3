//! Tensors of a file as the arguments of an operation.

use std::fmt::Display;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use siluette::arguments::{ArgumentInfo, ElementKind, Role};
use siluette::device::NamedTensors;
use siluette::registry::OperationInfo;
use siluette::{DType, Element, Error, HasLayout as _, Layout, Problem, Tensor};

use crate::tensor_file::TensorFile;

/// Every tensor of a file, all of which must be inputs of the operation.
pub fn inputs(file: &TensorFile, info: &OperationInfo) -> Result<NamedTensors, Error> {
    let known = || info.arguments.iter().filter(|argument| argument.role.is_given());
    let tensors = file.tensors()?;
    let mut names = tensors.names();
    names.sort_unstable();
    if let Some(name) = names.into_iter().find(|name| known().all(|info| info.name != *name)) {
        let expected = format!("one of: {}", info.given_names());
        return Err(mistake(info, "tensor", Problem::Unexpected, expected, format!("`{name}`")));
    }
    with_role(file, info, Role::is_given)
}

/// The tensors of a file that are named like arguments of these roles.
pub fn with_role(
    file: &TensorFile,
    info: &OperationInfo,
    is_wanted: fn(Role) -> bool,
) -> Result<NamedTensors, Error> {
    let tensors = file.tensors()?;
    let mut named = NamedTensors::new();
    for argument in info.arguments.iter().filter(|argument| is_wanted(argument.role)) {
        if let Ok(view) = tensors.tensor(argument.name) {
            named.insert(argument.name.to_owned(), tensor(info, argument, &view)?);
        }
    }
    Ok(named)
}

/// The floating-point types of the inputs, in the order of the arguments: `f32/bf16`, say.
pub fn dtypes(info: &OperationInfo, inputs: &NamedTensors) -> String {
    let mut names: Vec<&str> = Vec::new();
    for tensor in info.arguments.iter().filter_map(|argument| inputs.get(argument.name)) {
        let dtype = tensor.layout().dtype();
        if dtype.is_float() && !names.contains(&dtype.name()) {
            names.push(dtype.name());
        }
    }
    names.join("/")
}

/// An argument of an operation, by name.
pub fn argument(info: &OperationInfo, name: &'static str) -> Result<&'static ArgumentInfo, Error> {
    info.arguments.iter().find(|argument| argument.name == name).ok_or_else(|| {
        let expected = "an argument of the operation";
        mistake(info, name, Problem::Unexpected, expected, "no such argument")
    })
}

/// One tensor, converted to what the argument holds.
pub fn tensor(
    info: &OperationInfo,
    argument: &ArgumentInfo,
    view: &TensorView<'_>,
) -> Result<Tensor, Error> {
    match argument.element {
        ElementKind::Float => floats(info, argument, view),
        ElementKind::Index => integers::<u32>(info, argument, view, "0 to 4294967295"),
        ElementKind::Integer => integers::<i32>(info, argument, view, "-2147483648 to 2147483647"),
        ElementKind::Mask => masks(info, argument, view),
    }
}

fn floats(
    info: &OperationInfo,
    argument: &ArgumentInfo,
    view: &TensorView<'_>,
) -> Result<Tensor, Error> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => {
            let got = format!("{other:?}");
            return Err(mistake(info, argument.name, Problem::DType, "F32, F16 or BF16", got));
        }
    };
    let mut tensor = Tensor::zeros(layout(info, argument, dtype, view)?);
    // A copy: bytes in a file need not be aligned for their type.
    tensor.span_bytes_mut().copy_from_slice(view.data());
    Ok(tensor)
}

fn masks(
    info: &OperationInfo,
    argument: &ArgumentInfo,
    view: &TensorView<'_>,
) -> Result<Tensor, Error> {
    if !matches!(view.dtype(), Dtype::U8 | Dtype::BOOL) {
        let got = format!("{:?}", view.dtype());
        return Err(mistake(info, argument.name, Problem::DType, "U8 or BOOL", got));
    }
    let mut tensor = Tensor::zeros(layout(info, argument, DType::U8, view)?);
    tensor.span_bytes_mut().copy_from_slice(view.data());
    Ok(tensor)
}

fn integers<T: Element + TryFrom<i64>>(
    info: &OperationInfo,
    argument: &ArgumentInfo,
    view: &TensorView<'_>,
    domain: &str,
) -> Result<Tensor, Error> {
    let bytes = view.data();
    let wide: Vec<i64> = match view.dtype() {
        Dtype::I64 => elements(bytes, i64::from_le_bytes),
        Dtype::I32 => elements(bytes, |bytes| i32::from_le_bytes(bytes).into()),
        Dtype::U32 => elements(bytes, |bytes| u32::from_le_bytes(bytes).into()),
        Dtype::U16 => elements(bytes, |bytes| u16::from_le_bytes(bytes).into()),
        other => {
            let got = format!("{other:?}");
            return Err(mistake(info, argument.name, Problem::DType, "I64, I32, U32 or U16", got));
        }
    };
    layout(info, argument, T::DTYPE, view)?;
    let mut narrow = Vec::with_capacity(wide.len());
    for (index, value) in wide.into_iter().enumerate() {
        let Ok(value) = T::try_from(value) else {
            let got = format!("{value} at {:?}", position(index, view.shape()));
            return Err(mistake(info, argument.name, Problem::Value, domain, got));
        };
        narrow.push(value);
    }
    Tensor::from_slice(&narrow, view.shape())
}

fn elements<const SIZE: usize>(bytes: &[u8], widen: impl Fn([u8; SIZE]) -> i64) -> Vec<i64> {
    bytes.as_chunks::<SIZE>().0.iter().map(|&element| widen(element)).collect()
}

/// An element's place in each dimension.
fn position(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut position: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&length| {
            let place = index % length;
            index /= length;
            place
        })
        .collect();
    position.reverse();
    position
}

fn layout(
    info: &OperationInfo,
    argument: &ArgumentInfo,
    dtype: DType,
    view: &TensorView<'_>,
) -> Result<Layout, Error> {
    Layout::contiguous(dtype, view.shape()).map_err(|error| match error {
        Error::Argument { problem, expected, got, .. } => {
            mistake(info, argument.name, problem, expected, got)
        }
        other => other,
    })
}

/// An error about an argument of an operation.
pub fn mistake(
    info: &OperationInfo,
    argument: &'static str,
    problem: Problem,
    expected: impl Display,
    got: impl Display,
) -> Error {
    Error::Argument {
        op: info.name,
        argument: argument.into(),
        problem,
        expected: expected.to_string(),
        got: got.to_string(),
        remedy: "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use siluette::registry::OPERATIONS;

    fn convert(element: ElementKind, dtype: Dtype, bytes: &[u8]) -> Result<Tensor, Error> {
        let argument = ArgumentInfo { element, ..OPERATIONS[0].arguments[0] };
        let shape = vec![2, bytes.len() * 8 / dtype.bitsize() / 2];
        let view = TensorView::new(dtype, shape, bytes).unwrap();
        tensor(&OPERATIONS[0], &argument, &view)
    }

    fn bytes_of(values: [i64; 4]) -> Vec<u8> {
        values.into_iter().flat_map(i64::to_le_bytes).collect()
    }

    #[test]
    fn indices_of_every_width_are_taken() {
        let expected = Tensor::from_slice(&[1u32, 2, 3, 65_535], &[2, 2]).unwrap();
        let wide = [1u32, 2, 3, 65_535];
        let narrow: Vec<u8> =
            wide.into_iter().flat_map(|value| (value as u16).to_le_bytes()).collect();
        let four: Vec<u8> = wide.into_iter().flat_map(u32::to_le_bytes).collect();
        let eight = bytes_of(wide.map(i64::from));
        for (dtype, bytes) in
            [(Dtype::U16, &narrow), (Dtype::U32, &four), (Dtype::I32, &four), (Dtype::I64, &eight)]
        {
            assert_eq!(convert(ElementKind::Index, dtype, bytes).unwrap(), expected, "{dtype:?}");
        }
    }

    #[test]
    fn indices_out_of_range_are_located() {
        for (element, bad) in [
            (ElementKind::Index, -1),
            (ElementKind::Index, 1 << 32),
            (ElementKind::Integer, 1 << 31),
        ] {
            let error = convert(element, Dtype::I64, &bytes_of([0, 5, bad, 7])).unwrap_err();
            let expected = format!("{bad} at [1, 0]");
            assert!(error.to_string().contains(&expected), "{error}");
        }
        let negative = convert(ElementKind::Integer, Dtype::I64, &bytes_of([0, 1, -3, 4])).unwrap();
        assert_eq!(negative.view().to_f64(), [0.0, 1.0, -3.0, 4.0]);
    }

    #[test]
    fn every_kind_refuses_the_types_of_the_others() {
        let bytes = [0u8; 32];
        for (element, dtypes) in [
            (ElementKind::Float, [Dtype::I64, Dtype::F64, Dtype::U8]),
            (ElementKind::Index, [Dtype::F32, Dtype::U8, Dtype::I16]),
            (ElementKind::Mask, [Dtype::I64, Dtype::F32, Dtype::I8]),
        ] {
            for dtype in dtypes {
                let error = convert(element, dtype, &bytes).unwrap_err();
                assert_eq!(error.problem(), Some(Problem::DType), "{element:?} {dtype:?}");
            }
        }
        assert!(convert(ElementKind::Mask, Dtype::BOOL, &bytes).is_ok());
    }

    #[test]
    fn misaligned_bytes_are_copied() {
        let words = [0u32, 0x0000_003F, 0x8000_0040, 0x40, 0, 0, 0, 0, 0];
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        for offset in 0..4 {
            let tensor = convert(ElementKind::Float, Dtype::F32, &bytes[offset..offset + 16]);
            let expected: Vec<f64> = bytes[offset..offset + 16]
                .chunks_exact(4)
                .map(|chunk| f64::from(f32::from_le_bytes(chunk.try_into().unwrap())))
                .collect();
            assert_eq!(tensor.unwrap().view().to_f64(), expected);
        }
    }
}
