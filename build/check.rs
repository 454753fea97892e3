//! Validates shaders and translates them for every target that wgpu has.

use naga::back::{hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use crate::splice::{Module, Problem, Requirements};

/// The parsed module, if every target takes it.
pub fn check(module: &Module) -> Result<naga::Module, Problem> {
    let parsed = naga::front::wgsl::parse_str(&module.text).map_err(|error| {
        let offset = error.location(&module.text).map_or(0, |location| location.offset as usize);
        let labels: Vec<&str> = error.labels().map(|(_, label)| label).collect();
        module.problem(offset, format!("{} ({})", error.message(), labels.join("; ")))
    })?;
    // unpack2x16float: in every WebGPU implementation, missing from some OpenGL ones.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, module.requires.subgroups);
    let matrices = Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16;
    capabilities.set(matrices, module.requires.cooperative_matrices);
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&parsed).map_err(
        |error| {
            let spans: Vec<_> = error.spans().filter_map(|(span, _)| span.to_range()).collect();
            let offset = spans.last().map_or(0, |span| span.start);
            module.problem(offset, chain(error.as_inner()))
        },
    )?;
    if let [entry] = parsed.entry_points.as_slice() {
        translate(module, &parsed, &info, &entry.name)?;
        return Ok(parsed);
    }
    Err(module.problem(0, format!("{} entry points, expected one", parsed.entry_points.len())))
}

fn translate(
    source: &Module,
    module: &naga::Module,
    info: &ModuleInfo,
    entry: &str,
) -> Result<(), Problem> {
    let refused = |target: &str, error: &dyn std::error::Error| {
        source.problem(0, format!("as {target}: {}", chain(error)))
    };
    let stage = naga::ShaderStage::Compute;
    // Overrides at their defaults: the translation does not depend on the values.
    let (module, info) = process_overrides(module, info, Some((stage, entry)), &Default::default())
        .map_err(|error| refused("a pipeline", &error))?;

    let options = spv::Options {
        // Subgroup operations came with SPIR-V 1.3, cooperative matrices with 1.6.
        lang_version: match source.requires {
            Requirements { cooperative_matrices: true, .. } => (1, 6),
            Requirements { subgroups: true, .. } => (1, 3),
            _ => (1, 0),
        },
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: entry.to_owned() };
    spv::write_vec(&module, &info, &options, Some(&pipeline))
        .map_err(|error| refused("SPIR-V", &error))?;

    let options = msl::Options { lang_version: (2, 4), ..Default::default() };
    let (_, translation) =
        msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
            .map_err(|error| refused("MSL", &error))?;
    for entry in &translation.entry_point_names {
        entry.as_ref().map_err(|error| refused("MSL", error))?;
    }

    // naga has no words for matrices there.
    if source.requires.cooperative_matrices {
        return Ok(());
    }
    let options = hlsl::Options {
        shader_model: if source.requires.subgroups {
            hlsl::ShaderModel::V6_0
        } else {
            hlsl::ShaderModel::V5_1
        },
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions::default();
    let mut text = String::new();
    let translation = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(&module, &info, None)
        .map_err(|error| refused("HLSL", &error))?;
    for entry in &translation.entry_point_names {
        entry.as_ref().map_err(|error| refused("HLSL", error))?;
    }
    Ok(())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
