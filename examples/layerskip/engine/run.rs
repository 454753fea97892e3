//! All runs of the example.

use std::path::{Path, PathBuf};

use candle_core::DType;
use serde_json::json;
use siluette::ModelIndexSets;
use tokenizers::Tokenizer;

use super::config::Config;
use super::generate::{Task, plain, speculative};
use super::llama::Engine;
use super::operations::{Operations, Sampling};
use super::report::{Run, table};
use super::screen::say;
use super::weights::Weights;
use super::{Failure, Options, pruning};

/// Whether drafting left the tokens as they were, in every run.
pub fn execute(options: &Options) -> Result<bool, Failure> {
    let config = Config::load(&options.model)?;
    let tokenizer = tokenizer(&options.model, &config)?;
    let encoding = tokenizer.encode(options.prompt.as_str(), false).map_err(Failure::input)?;
    let prompt: Vec<i32> = encoding.get_ids().iter().map(|&id| id as i32).collect();
    let exit_layer = options.exit_layer_of(&config, prompt.len())?;
    let models = Models::load(options, &config)?;
    let sampling = Sampling { temperature: options.temperature, seed: options.seed };
    let mut rounds = Vec::new();
    for round in 0..options.rounds.max(1) {
        let task = Task {
            config: &config,
            tokenizer: &tokenizer,
            prompt: &prompt,
            length: options.length,
            exit_layer,
            draft_length: options.draft_length,
            shows_text: !options.json && round == 0,
        };
        // On a thread of the pool, operations start without waking another one first.
        rounds.push(rayon::scope(|_| models.run(&task, sampling))?);
    }
    let runs = medians(rounds);
    report(options, exit_layer, &config, &runs);
    let mut drafted = runs.iter().filter_map(|run| run.speculation.as_ref());
    Ok(drafted.all(|speculation| speculation.is_equal))
}

/// The weights as the runs want them.
struct Models {
    dense: Weights,
    /// What is left out, in percent.
    pruned: Option<(f64, Weights)>,
    candle: Vec<Weights>,
}

impl Models {
    fn load(options: &Options, config: &Config) -> Result<Models, Failure> {
        let dense = Weights::load(&options.model, config, options.dtype.into())?;
        let masks = masks(options, config)?;
        let pruned = masks.map(|masks| {
            let share = 100.0 * pruning::pruned_share(&masks, config);
            Ok::<_, Failure>((share, pruning::pruned(&dense, &masks)?))
        });
        Ok(Models {
            pruned: pruned.transpose()?,
            // candle's products of bf16 are slower than either.
            candle: vec![dense.to_dtype(DType::F32)?, dense.to_dtype(DType::F16)?],
            dense,
        })
    }

    fn run(&self, task: &Task<'_>, sampling: Sampling) -> Result<Vec<Run>, Failure> {
        let mut runs = Vec::new();
        for weights in &self.candle {
            let name = format!("candle, {}", weights.head.dtype().as_str());
            runs.push(plain(task, weights, Engine::Candle, &name)?);
        }
        runs.extend(pair(task, &self.dense, None, "siluette")?);
        runs.extend(pair(task, &self.dense, Some(sampling), "siluette, sampled")?);
        if let Some((share, weights)) = &self.pruned {
            runs.extend(pair(task, weights, None, &format!("siluette, {share:.0} % pruned"))?);
        }
        Ok(runs)
    }
}

/// The first round with the median times of all. Texts that differ between rounds count as changed.
fn medians(mut rounds: Vec<Vec<Run>>) -> Vec<Run> {
    let mut first = rounds.remove(0);
    for (index, run) in first.iter_mut().enumerate() {
        let others = rounds.iter().map(|runs| &runs[index]);
        let median = |own: f64, time: fn(&Run) -> f64| {
            let mut times: Vec<f64> = others.clone().map(time).chain([own]).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        run.seconds = median(run.seconds, |run| run.seconds);
        run.mlp_seconds = median(run.mlp_seconds, |run| run.mlp_seconds);
        let is_same = others.into_iter().all(|other| other.tokens == run.tokens);
        if let Some(speculation) = &mut run.speculation {
            speculation.is_equal &= is_same;
        }
    }
    first
}

/// A run with siluette, and one that drafts.
fn pair(
    task: &Task<'_>,
    weights: &Weights,
    sampling: Option<Sampling>,
    name: &str,
) -> Result<[Run; 2], Failure> {
    let engine = || {
        let operations = Operations::new(task.config, weights, sampling)?;
        Ok::<_, Failure>(Engine::Siluette(Box::new(operations)))
    };
    let plain = plain(task, weights, engine()?, name)?;
    let speculative = speculative(task, weights, engine()?, &plain)?;
    Ok([plain, speculative])
}

/// Those that were asked for, or those of the model's folder if it has any.
fn masks(options: &Options, config: &Config) -> Result<Option<ModelIndexSets>, Failure> {
    let path: PathBuf = match &options.masks {
        Some(path) => path.clone(),
        None => {
            let path = options.model.join("masks_50.safetensors");
            if !path.exists() {
                return Ok(None);
            }
            path
        }
    };
    pruning::load(&path, config).map(Some)
}

fn tokenizer(folder: &Path, config: &Config) -> Result<Tokenizer, Failure> {
    let path = folder.join("tokenizer.json");
    let refuse = |reason: String| Failure::input(format!("{}: {reason}", path.display()));
    let tokenizer = Tokenizer::from_file(&path).map_err(|error| refuse(error.to_string()))?;
    let size = tokenizer.get_vocab_size(true);
    if size > config.vocabulary {
        let most = config.vocabulary;
        return Err(refuse(format!("{size} tokens, but the model has {most}")));
    }
    Ok(tokenizer)
}

fn report(options: &Options, exit_layer: usize, config: &Config, runs: &[Run]) {
    if options.json {
        let report = json!({
            "model": options.model,
            "prompt": options.prompt,
            "exit_layer": exit_layer,
            "draft_length": options.draft_length,
            "rounds": options.rounds,
            "threads": rayon::current_num_threads(),
            "runs": runs.iter().map(Run::to_json).collect::<Vec<_>>(),
        });
        say(&format!("{report:#}\n"));
        return;
    }
    let (layers, drafts) = (config.layers, options.draft_length);
    say(&format!("\nexit behind layer {exit_layer} of {layers}, drafts of {drafts}\n\n"));
    say(&table(runs));
}
