//! Generates the Rust side of the shaders: `OUT_DIR/shaders.rs` and a file of WGSL for each module.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::check::check;
use crate::reflect::{Interface, interface};
use crate::splice::{self, Kernel, Problem, Requirements};

pub fn generate() -> Result<(), Problem> {
    println!("cargo::rerun-if-changed=build");
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("kernels");
    let out = PathBuf::from(variable("OUT_DIR"));
    let mut code = String::new();
    let mut names = Vec::new();
    let kernels = splice::kernels(&root)?;
    let mut interfaces = BTreeMap::new();
    for kernel in &kernels {
        if let Some(interface) = module(kernel, &out, &mut code, &mut names)? {
            interfaces.insert(kernel.name.as_str(), interface);
        }
    }
    for kernel in &kernels {
        borrowed(kernel, &interfaces)?;
    }
    let names = names.join(", ");
    let _ = writeln!(code, "/// Every variant of every kernel.\n#[rustfmt::skip]");
    let _ = writeln!(code, "pub(crate) static SHADERS: &[&Shader] = &[{names}];");
    write(&out.join("shaders.rs"), &code);
    Ok(())
}

fn module(
    kernel: &Kernel,
    out: &Path,
    code: &mut String,
    names: &mut Vec<String>,
) -> Result<Option<Interface>, Problem> {
    let mut statics = String::new();
    let mut first: Option<Interface> = None;
    for variant in &kernel.variants {
        let parsed = check(variant)?;
        let interface = interface(&parsed).map_err(|message| variant.problem(0, message))?;
        let full = [&[kernel.name.clone()][..], &variant.choices].concat().join(".");
        let constant = match variant.choices.as_slice() {
            [] => "ONLY".to_owned(),
            choices => choices.join("_").to_uppercase(),
        };
        write(&out.join(format!("{full}.wgsl")), &variant.text);
        shader(&mut statics, &full, &constant, variant.requires, &interface);
        names.push(format!("&{}::{constant}", kernel.name));
        match &first {
            None => first = Some(interface),
            Some(first) => same(first, &interface).map_err(|what| {
                variant.problem(0, format!("{full} has other {what} than its sisters"))
            })?,
        }
    }
    if let Some(interface) = &first {
        let _ = writeln!(code, "/// `kernels/{}`", kernel.file);
        let _ = writeln!(code, "#[rustfmt::skip]\npub(crate) mod {} {{", kernel.name);
        let _ = writeln!(code, "use super::{{Access, BindingInfo, Shader}};");
        if kernel.variants.iter().all(|variant| variant.interface.is_none()) {
            parameters(code, interface);
            bindings(code, interface);
        }
        constants(code, interface);
        let _ = writeln!(code, "{statics}}}");
    }
    Ok(first)
}

/// That a kernel has the bindings and parameters that it says it has.
fn borrowed(kernel: &Kernel, interfaces: &BTreeMap<&str, Interface>) -> Result<(), Problem> {
    for variant in &kernel.variants {
        let Some(lender) = &variant.interface else { continue };
        let Some(theirs) = interfaces.get(lender.as_str()) else {
            return Err(variant.problem(0, format!("no kernel {lender}, whose interface this has")));
        };
        same_launch(&interfaces[kernel.name.as_str()], theirs).map_err(|what| {
            variant.problem(0, format!("{} has other {what} than {lender}", kernel.name))
        })?;
    }
    Ok(())
}

/// Variants share one host side: only workgroup memory and how a binding is used may differ.
fn same(a: &Interface, b: &Interface) -> Result<(), &'static str> {
    same_launch(a, b)?;
    if a.constants == b.constants { Ok(()) } else { Err("overrides") }
}

fn same_launch(a: &Interface, b: &Interface) -> Result<(), &'static str> {
    let names = |interface: &Interface| {
        let bindings = interface.bindings.iter();
        bindings.map(|binding| (binding.index, binding.name.clone())).collect::<Vec<_>>()
    };
    if names(a) != names(b) {
        Err("bindings")
    } else if a.parameters != b.parameters {
        Err("parameters")
    } else {
        Ok(())
    }
}

fn parameters(code: &mut String, interface: &Interface) {
    let _ = writeln!(
        code,
        "/// The uniform struct of the shader, field by field.\n\
         #[repr(C)]\n\
         #[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]\n\
         pub(crate) struct Parameters {{"
    );
    for field in &interface.parameters {
        let _ = writeln!(code, "    pub {}: {},", field.name, field.kind);
    }
    let _ = writeln!(code, "}}");
}

fn constants(code: &mut String, interface: &Interface) {
    let _ = writeln!(
        code,
        "/// The shader's overrides.\n#[derive(Clone, Copy, Debug)]\npub(crate) struct Constants {{"
    );
    for constant in &interface.constants {
        let _ = writeln!(code, "    pub {}: {},", constant.name.to_lowercase(), constant.kind);
    }
    let _ = writeln!(
        code,
        "}}\nimpl Default for Constants {{\n    fn default() -> Self {{\n        Constants {{"
    );
    for constant in &interface.constants {
        let _ = writeln!(code, "{}: {},", constant.name.to_lowercase(), constant.default);
    }
    let _ = writeln!(
        code,
        "}}\n    }}\n}}\nimpl Constants {{\n    \
         pub(crate) fn values(&self) -> Vec<(&'static str, f64)> {{\n        vec!["
    );
    for constant in &interface.constants {
        let (name, field) = (&constant.name, constant.name.to_lowercase());
        let value = match constant.kind {
            "bool" => format!("f64::from(u8::from(self.{field}))"),
            _ => format!("f64::from(self.{field})"),
        };
        let _ = writeln!(code, "(\"{name}\", {value}),");
    }
    let _ = writeln!(code, "]\n    }}\n}}");
}

fn bindings(code: &mut String, interface: &Interface) {
    let _ = writeln!(
        code,
        "/// What the shader binds, besides its parameters.\npub(crate) struct Bindings<T> {{"
    );
    let storage = || interface.bindings.iter().filter(|binding| binding.access != "Uniform");
    for binding in storage() {
        let _ = writeln!(code, "    pub {}: T,", binding.name);
    }
    let count = storage().count();
    let _ = writeln!(
        code,
        "}}\nimpl<T> Bindings<T> {{\n    \
         /// In the order of [`Shader::bindings`], the parameters left out.\n    \
         pub(crate) fn into_array(self) -> [T; {count}] {{\n        ["
    );
    for binding in storage() {
        let _ = writeln!(code, "self.{},", binding.name);
    }
    let _ = writeln!(code, "]\n    }}\n}}");
}

fn shader(
    code: &mut String,
    full: &str,
    name: &str,
    requires: Requirements,
    interface: &Interface,
) {
    let Requirements { subgroups, cooperative_matrices } = requires;
    let _ = writeln!(
        code,
        "/// `{full}`\n\
         pub(crate) static {name}: Shader = Shader {{\n    \
         name: \"{full}\",\n    \
         entry_point: \"{}\",\n    \
         source: include_str!(concat!(env!(\"OUT_DIR\"), \"/{full}.wgsl\")),\n    \
         subgroups: {subgroups},\n    \
         cooperative_matrices: {cooperative_matrices},\n    \
         bindings: &[",
        interface.entry_point,
    );
    for binding in &interface.bindings {
        let _ = writeln!(
            code,
            "BindingInfo {{ index: {}, access: Access::{} }},",
            binding.index, binding.access
        );
    }
    let used = if interface.workgroup_bytes.contains("constants") { "constants" } else { "_" };
    let _ = writeln!(code, "],\n    workgroup_bytes: |{used}| {},\n}};", interface.workgroup_bytes);
}

fn variable(name: &str) -> String {
    std::env::var(name).expect("cargo sets it for build scripts")
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("OUT_DIR is writable");
}
