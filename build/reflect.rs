//! Reads off a module what the host must know: bindings, parameters, constants, workgroup memory.

use naga::{AddressSpace, ArraySize, Expression, Handle, Literal, ScalarKind, TypeInner};

/// What the host must know of a module.
#[derive(PartialEq)]
pub struct Interface {
    pub entry_point: String,
    pub bindings: Vec<Binding>,
    pub parameters: Vec<Field>,
    pub constants: Vec<Constant>,
    /// A Rust expression over `constants: &[(&str, f64)]`.
    pub workgroup_bytes: String,
}

#[derive(PartialEq)]
pub struct Binding {
    pub index: u32,
    pub name: String,
    pub access: &'static str,
}

#[derive(PartialEq)]
pub struct Field {
    pub name: String,
    pub kind: &'static str,
}

#[derive(PartialEq)]
pub struct Constant {
    pub name: String,
    pub kind: &'static str,
    pub default: String,
}

pub fn interface(module: &naga::Module) -> Result<Interface, String> {
    let [entry] = module.entry_points.as_slice() else { return Err("one entry point".into()) };
    let mut interface = Interface {
        entry_point: entry.name.clone(),
        bindings: Vec::new(),
        parameters: Vec::new(),
        constants: constants(module)?,
        workgroup_bytes: String::new(),
    };
    let mut workgroup_bytes = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let name = variable.name.clone().unwrap_or_default();
        let access = match variable.space {
            AddressSpace::Uniform => {
                interface.parameters = parameters(module, variable.ty)?;
                "Uniform"
            }
            AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                "ReadWrite"
            }
            AddressSpace::Storage { .. } => "Read",
            AddressSpace::WorkGroup => {
                workgroup_bytes.push(bytes(module, variable.ty)?);
                continue;
            }
            AddressSpace::Private => continue,
            _ => return Err(format!("{name}: unexpected address space")),
        };
        let index = variable.binding.ok_or_else(|| format!("{name} has no binding"))?.binding;
        interface.bindings.push(Binding { index, name, access });
    }
    interface.bindings.sort_by_key(|binding| binding.index);
    interface.workgroup_bytes =
        if workgroup_bytes.is_empty() { "0".into() } else { workgroup_bytes.join(" + ") };
    Ok(interface)
}

/// The members of the uniform struct: 32-bit scalars, hence without padding in Rust and in WGSL alike.
fn parameters(module: &naga::Module, ty: Handle<naga::Type>) -> Result<Vec<Field>, String> {
    let TypeInner::Struct { members, span } = &module.types[ty].inner else {
        return Err("the uniform is not a struct".into());
    };
    if *span as usize != members.len() * 4 {
        return Err("the uniform struct has padding".into());
    }
    members
        .iter()
        .map(|member| {
            let name = member.name.clone().unwrap_or_default();
            let kind = scalar(module, member.ty).filter(|&kind| kind != "bool");
            let kind = kind.ok_or_else(|| format!("parameter {name} is not a 32-bit number"))?;
            Ok(Field { name, kind })
        })
        .collect()
}

fn constants(module: &naga::Module) -> Result<Vec<Constant>, String> {
    // Array sizes that are expressions appear as overrides without names.
    let named = module
        .overrides
        .iter()
        .filter_map(|(_, constant)| constant.name.as_ref().map(|name| (name.clone(), constant)));
    named
        .map(|(name, constant)| {
            let kind = scalar(module, constant.ty).ok_or_else(|| format!("{name}: its type"))?;
            let default = constant.init.map(|init| &module.global_expressions[init]);
            let default = match default {
                Some(Expression::Literal(Literal::U32(value))) => value.to_string(),
                Some(Expression::Literal(Literal::I32(value))) => value.to_string(),
                Some(Expression::Literal(Literal::F32(value))) => format!("{value:?}"),
                Some(Expression::Literal(Literal::Bool(value))) => value.to_string(),
                _ => return Err(format!("override {name} needs a literal default")),
            };
            Ok(Constant { name, kind, default })
        })
        .collect()
}

fn scalar(module: &naga::Module, ty: Handle<naga::Type>) -> Option<&'static str> {
    match module.types[ty].inner {
        TypeInner::Scalar(naga::Scalar { kind: ScalarKind::Uint, width: 4 }) => Some("u32"),
        TypeInner::Scalar(naga::Scalar { kind: ScalarKind::Sint, width: 4 }) => Some("i32"),
        TypeInner::Scalar(naga::Scalar { kind: ScalarKind::Float, width: 4 }) => Some("f32"),
        TypeInner::Scalar(naga::Scalar { kind: ScalarKind::Bool, .. }) => Some("bool"),
        _ => None,
    }
}

/// The size of a workgroup variable, as a Rust expression.
fn bytes(module: &naga::Module, ty: Handle<naga::Type>) -> Result<String, String> {
    let inner = &module.types[ty].inner;
    if let TypeInner::Array { size: ArraySize::Pending(length), stride, .. } = *inner {
        let length = &module.overrides[length];
        let length = match (&length.name, length.init) {
            (Some(name), _) => constant(module, name)?,
            (None, Some(init)) => expression(module, init)?,
            (None, None) => return Err("an array size without value".into()),
        };
        return Ok(format!("{stride} * ({length})"));
    }
    Ok(inner.size(module.to_ctx()).to_string())
}

fn constant(module: &naga::Module, name: &str) -> Result<String, String> {
    let position = constants(module)?.iter().position(|constant| constant.name == name);
    let position = position.ok_or_else(|| format!("no override {name}"))?;
    Ok(format!("constants[{position}].1 as u64"))
}

fn expression(module: &naga::Module, handle: Handle<Expression>) -> Result<String, String> {
    match module.global_expressions[handle] {
        Expression::Literal(Literal::U32(value)) => Ok(value.to_string()),
        Expression::Literal(Literal::I32(value)) => Ok(value.to_string()),
        Expression::Override(handle) => {
            constant(module, module.overrides[handle].name.as_deref().unwrap_or_default())
        }
        Expression::Constant(handle) => expression(module, module.constants[handle].init),
        Expression::Binary { op, left, right } => {
            let (left, right) = (expression(module, left)?, expression(module, right)?);
            let op = match op {
                naga::BinaryOperator::Add => '+',
                naga::BinaryOperator::Multiply => '*',
                naga::BinaryOperator::Divide => '/',
                _ => return Err(format!("an array size with {op:?}")),
            };
            Ok(format!("({left}) {op} ({right})"))
        }
        ref other => Err(format!("an array size with {other:?}")),
    }
}
