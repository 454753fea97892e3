//! One text, token after token or by drafts.

use std::time::{Duration, Instant};

use siluette::{LayerRow, Layers as _, SelfSpeculation, SpeculationSettings};
use tokenizers::Tokenizer;

use super::Failure;
use super::config::Config;
use super::llama::{Engine, Llama};
use super::report::{Run, Speculation};
use super::screen::Screen;
use super::weights::Weights;

/// What all runs have in common.
pub struct Task<'a> {
    pub config: &'a Config,
    pub tokenizer: &'a Tokenizer,
    pub prompt: &'a [i32],
    pub length: usize,
    pub exit_layer: usize,
    pub draft_length: usize,
    pub shows_text: bool,
}

impl Task<'_> {
    fn screen(&self, name: &str) -> Option<Screen<'_>> {
        self.shows_text.then(|| Screen::new(self.tokenizer, name, self.prompt, self.length))
    }

    fn llama<'a>(&'a self, weights: &'a Weights, engine: Engine) -> Llama<'a> {
        let capacity = self.prompt.len() + self.length;
        Llama::new(self.config, weights, engine, self.exit_layer, capacity)
    }
}

/// One token after the other.
pub fn plain(
    task: &Task<'_>,
    weights: &Weights,
    engine: Engine,
    name: &str,
) -> Result<Run, Failure> {
    let layers = 0..task.config.layers;
    let mut llama = task.llama(weights, engine);
    let mut screen = task.screen(name);
    let (mut tokens, mut spent, mut prompt_mlps) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    let mut rows: Vec<LayerRow> = (0..)
        .zip(task.prompt)
        .map(|(position, &token)| row(position, token, position + 1 == task.prompt.len()))
        .collect();
    while tokens.len() < task.length {
        let started = Instant::now();
        let mut token = [0];
        llama.run(layers.clone(), &rows, &mut token)?;
        let [token] = token;
        match tokens.is_empty() {
            true => prompt_mlps = llama.mlp_time(),
            false => spent += started.elapsed(),
        }
        tokens.push(token);
        if let Some(screen) = &mut screen {
            screen.show(&[token]);
        }
        if task.config.stop_ids.contains(&token) {
            break;
        }
        rows = vec![row(task.prompt.len() + tokens.len() - 1, token, true)];
    }
    if let Some(screen) = screen {
        screen.finish();
    }
    let (timed, seconds) = (tokens.len() - 1, spent.as_secs_f64());
    let mlp_seconds = (llama.mlp_time() - prompt_mlps).as_secs_f64();
    Ok(Run { name: name.to_owned(), tokens, timed, seconds, mlp_seconds, speculation: None })
}

fn row(position: usize, token: i32, wants_token: bool) -> LayerRow {
    LayerRow { sequence: 0, position, token, wants_token }
}

/// Drafts by the first layers, verified by the others; should give the tokens of `plain`.
pub fn speculative(
    task: &Task<'_>,
    weights: &Weights,
    engine: Engine,
    plain: &Run,
) -> Result<Run, Failure> {
    let name = format!("{}, self-speculative", plain.name);
    let settings = SpeculationSettings::new(task.config.layers, task.exit_layer)?
        .with_draft_length(task.draft_length)
        .with_stop_ids(&task.config.stop_ids);
    let mut llama = task.llama(weights, engine);
    let mut speculation = SelfSpeculation::new(settings, 1, task.prompt.len() + task.length)?;
    let sequence = speculation.add(task.prompt, task.length)?;
    let mut screen = task.screen(&name);
    let (mut tokens, mut timed) = (Vec::new(), 0);
    let (mut spent, mut prompt_mlps) = (Duration::ZERO, Duration::ZERO);
    while speculation.is_active(sequence) {
        let started = Instant::now();
        let progress = speculation.step(&mut llama)?;
        let elapsed = started.elapsed();
        let new: Vec<i32> = progress.into_iter().flat_map(|progress| progress.tokens).collect();
        // The first iteration reads the prompt.
        if tokens.is_empty() {
            prompt_mlps = llama.mlp_time();
        } else {
            spent += elapsed;
            timed += new.len();
        }
        if let Some(screen) = &mut screen {
            screen.show(&new);
        }
        tokens.extend(new);
    }
    if let Some(screen) = screen {
        screen.finish();
    }
    let statistics = speculation.statistics();
    let is_equal = tokens == plain.tokens;
    let speculation = Some(Speculation {
        acceptance: statistics.acceptance(),
        tokens_per_verification: statistics.tokens_per_verification(),
        is_equal,
    });
    let mlp_seconds = (llama.mlp_time() - prompt_mlps).as_secs_f64();
    Ok(Run { name, tokens, timed, seconds: spent.as_secs_f64(), mlp_seconds, speculation })
}
