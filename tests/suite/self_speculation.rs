//! Self-speculation against plain decoding, token for token, on a toy model that notices whatever is stale in its caches.

use std::ops::Range;

use siluette::{
    Cpu, DType, Error, ExitHead, ExitHeadArgs, ExitRing, Finish, LayerRow, Layers, Problem,
    SelfSpeculation, SpeculationSettings, TensorMut, TensorRef, Workspace,
};

const LAYERS: usize = 5;
const FEATURES: usize = 8;
const VOCABULARY: usize = 24;

fn mix(a: u64, b: u64) -> u64 {
    let mut bits = (a ^ b.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits ^ (bits >> 32)
}

/// Random numbers below a limit.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = mix(self.0, 1);
        (self.0 % limit as u64) as usize
    }
}

/// A row's state between layers: everything that it depends on, and what its head sees of that.
#[derive(Clone, Copy, PartialEq)]
struct State {
    history: u64,
    visible: u64,
}

/// A model whose tokens are functions of all that lies in its caches, and whose exit agrees with its end three times out
/// of four.
struct Toy {
    exit_layer: usize,
    sampled: bool,
    ring: ExitRing,
    states: Vec<State>,
    /// For each layer, a key for each row of the ring.
    keys: Vec<Vec<u64>>,
    head: Vec<f32>,
    cpu: Cpu,
    workspace: Workspace,
    /// Calls until one fails.
    patience: Option<usize>,
    calls: usize,
    /// Whether the exit keeps some tokens to itself, depending on which they are.
    shy: bool,
    /// Positions whose logits are no numbers: in the exit, and in the end.
    silent: [Option<usize>; 2],
}

#[derive(Debug)]
enum ToyError {
    Failed,
    Siluette(Error),
}

impl From<Error> for ToyError {
    fn from(error: Error) -> ToyError {
        ToyError::Siluette(error)
    }
}

impl Toy {
    fn new(exit_layer: usize, ring: ExitRing, sampled: bool) -> Toy {
        let weight = |i: usize| (mix(7, i as u64) % 2001) as f32 / 1000.0 - 1.0;
        Toy {
            exit_layer,
            sampled,
            ring,
            states: vec![State { history: u64::MAX, visible: u64::MAX }; ring.rows()],
            keys: vec![vec![u64::MAX; ring.rows()]; LAYERS],
            head: (0..VOCABULARY * FEATURES).map(weight).collect(),
            cpu: Cpu::new(),
            workspace: Workspace::default(),
            patience: None,
            calls: 0,
            shy: false,
            silent: [None; 2],
        }
    }

    fn layer(&mut self, layer: usize, row: &LayerRow, state: State) -> State {
        let first = self.ring.row(row.sequence, 0).unwrap();
        self.keys[layer][first + row.position] = mix(state.history, layer as u64);
        let seen = &self.keys[layer][first..=first + row.position];
        let history = seen.iter().fold(state.history, |all, &key| mix(all, key));
        let visible = match layer + 1 {
            next if next == self.exit_layer => history,
            LAYERS if history % 4 == 0 => history,
            _ => state.visible,
        };
        State { history, visible }
    }

    fn tokens(&mut self, is_exit: bool, rows: &[(LayerRow, State)]) -> Vec<i32> {
        let silent = self.silent[usize::from(!is_exit)];
        let feature = |row: &LayerRow, state: &State, i: usize| match silent == Some(row.position) {
            true => f32::NAN,
            false => (mix(state.visible, i as u64) % 2001) as f32 / 1000.0 - 1.0,
        };
        let hidden: Vec<f32> = rows
            .iter()
            .flat_map(|(row, state)| (0..FEATURES).map(move |i| feature(row, state, i)))
            .collect();
        let positions: Vec<i32> = rows.iter().map(|(row, _)| row.position as i32).collect();
        let mut tokens = vec![0; rows.len()];
        let op = ExitHead::new(FEATURES, VOCABULARY, DType::F32).unwrap();
        let op = op.with_sampling(1.5, 99).unwrap();
        let head = TensorRef::new(&self.head, &[VOCABULARY, FEATURES]).unwrap();
        let args =
            ExitHeadArgs::new(TensorRef::new(&hidden, &[rows.len(), FEATURES]).unwrap(), head)
                .positions(TensorRef::new(&positions, &[rows.len()]).unwrap());
        let out = TensorMut::new(&mut tokens, &[rows.len()]).unwrap();
        let args = if self.sampled { args.sampled_token(out) } else { args.token(out) };
        self.cpu.exit_head(&op, args, &mut self.workspace).unwrap();
        tokens
    }
}

impl Layers for Toy {
    type Error = ToyError;

    fn run(
        &mut self,
        layers: Range<usize>,
        rows: &[LayerRow],
        tokens: &mut [i32],
    ) -> Result<(), ToyError> {
        self.calls += 1;
        assert!(!rows.is_empty() && !layers.is_empty());
        for pair in rows.windows(2).filter(|pair| pair[0].sequence == pair[1].sequence) {
            assert_eq!(pair[0].position + 1, pair[1].position, "gaps between rows");
        }
        let mut wanted = Vec::new();
        for row in rows {
            let at = self.ring.row(row.sequence, row.position).unwrap();
            let embedding = mix(row.token as u64, row.position as u64);
            let mut state = match layers.start {
                0 => State { history: embedding, visible: embedding },
                _ => self.states[at],
            };
            for layer in layers.clone() {
                state = self.layer(layer, row, state);
                if layer + 1 == self.exit_layer {
                    self.states[at] = state;
                }
            }
            if row.wants_token {
                wanted.push((*row, state));
            }
        }
        // Fails when everything is half done.
        if let Some(patience) = &mut self.patience {
            *patience = patience.checked_sub(1).ok_or(ToyError::Failed)?;
        }
        let is_exit = layers.end == self.exit_layer;
        tokens.copy_from_slice(&self.tokens(is_exit, &wanted));
        if is_exit && self.shy {
            tokens.iter_mut().filter(|token| **token % 5 == 0).for_each(|token| *token = -1);
        }
        Ok(())
    }
}

/// What plain decoding emits.
fn plain(
    exit_layer: usize,
    sampled: bool,
    prompt: &[i32],
    budget: usize,
    stops: &[i32],
) -> Vec<i32> {
    let mut toy = Toy::new(exit_layer, ExitRing::new(1, prompt.len() + budget), sampled);
    let mut known = prompt.to_vec();
    let mut next = 0;
    while known.len() < prompt.len() + budget {
        let rows: Vec<LayerRow> = (next..known.len())
            .map(|position| LayerRow {
                sequence: 0,
                position,
                token: known[position],
                wants_token: position + 1 == known.len(),
            })
            .collect();
        next = known.len();
        let mut token = [0];
        toy.run(0..LAYERS, &rows, &mut token).unwrap();
        known.push(token[0]);
        if stops.contains(&token[0]) {
            break;
        }
    }
    known.split_off(prompt.len())
}

/// A sequence, what it should emit, and what it has.
struct Watched {
    place: usize,
    expected: Vec<i32>,
    emitted: Vec<i32>,
}

/// Decodes sequences that come and go, in batches of random shapes; says how many and how many tokens were accepted.
fn decode(seed: u64, sampled: bool) -> (usize, u64) {
    let mut random = Random(seed);
    let exit_layer = 1 + random.below(LAYERS - 1);
    let (places, capacity) = (1 + random.below(4), 4 + random.below(28));
    let stops: Vec<i32> = (0..random.below(3)).map(|_| random.below(VOCABULARY) as i32).collect();
    let settings = SpeculationSettings::new(LAYERS, exit_layer)
        .unwrap()
        .with_draft_length(random.below(7))
        .with_stop_ids(&stops);
    let mut speculation = SelfSpeculation::new(settings, places, capacity).unwrap();
    let mut toy = Toy::new(exit_layer, speculation.exit_ring(), sampled);
    // A draft that ends because of the token that was drawn would bias what accepts at random, but not this.
    toy.shy = random.below(3) == 0;
    let mut waiting = 6;
    let mut done = 0;
    let mut watched: Vec<Watched> = Vec::new();
    while waiting > 0 || !watched.is_empty() {
        while waiting > 0 && watched.len() < places && random.below(3) > 0 {
            waiting -= 1;
            let prompt: Vec<i32> = (0..1 + random.below(capacity.min(9)))
                .map(|_| random.below(VOCABULARY) as i32)
                .collect();
            let budget = random.below(30);
            let place = speculation.add(&prompt, budget).unwrap();
            // All tokens but the last need a place in the cache.
            let budget = budget.min(capacity + 1 - prompt.len());
            let expected = plain(exit_layer, sampled, &prompt, budget, &stops);
            watched.push(Watched { place, expected, emitted: Vec::new() });
        }
        for sequence in &watched {
            if random.below(3) == 0 {
                // Depends on what was emitted: no choice of a draft's length may show.
                let length =
                    random.below(9) + sequence.emitted.last().map_or(0, |&t| t as usize % 3);
                speculation.set_draft_length(sequence.place, length).unwrap();
            }
        }
        if random.below(5) == 0 {
            toy.patience = Some(random.below(4));
        }
        let progress = match speculation.step(&mut toy) {
            Ok(progress) => progress,
            Err(ToyError::Failed) => {
                toy.patience = None;
                speculation.step(&mut toy).unwrap()
            }
            Err(ToyError::Siluette(error)) => panic!("{error}"),
        };
        toy.patience = None;
        for news in progress {
            let sequence = watched.iter_mut().find(|it| it.place == news.sequence).unwrap();
            assert!(news.accepted <= news.drafted && !news.tokens.is_empty());
            sequence.emitted.extend(news.tokens);
            let so_far = &sequence.expected[..sequence.emitted.len().min(sequence.expected.len())];
            assert_eq!(sequence.emitted, so_far, "seed {seed}");
        }
        watched.retain(|sequence| {
            if speculation.is_active(sequence.place) {
                return true;
            }
            assert_eq!(sequence.emitted, sequence.expected, "seed {seed}");
            let stopped = sequence.expected.last().is_some_and(|last| stops.contains(last));
            let finish = if stopped { Finish::Stop } else { Finish::Budget };
            assert_eq!(speculation.finish(sequence.place), Some(finish), "seed {seed}");
            speculation.remove(sequence.place).unwrap();
            done += 1;
            false
        });
    }
    (done, speculation.statistics().accepted)
}

#[test]
fn greedy_tokens_are_those_of_plain_decoding() {
    let totals: Vec<_> = (0..400).map(|seed| decode(seed, false)).collect();
    assert_eq!(totals.iter().map(|total| total.0).sum::<usize>(), 2400);
    assert!(totals.iter().map(|total| total.1).sum::<u64>() > 5_000, "hardly a draft accepted");
}

#[test]
fn sampled_tokens_are_those_of_plain_decoding() {
    let totals: Vec<_> = (1000..1400).map(|seed| decode(seed, true)).collect();
    assert_eq!(totals.iter().map(|total| total.0).sum::<usize>(), 2400);
    assert!(totals.iter().map(|total| total.1).sum::<u64>() > 5_000, "hardly a draft accepted");
}

/// One sequence of a toy that drafts four tokens.
fn single(stops: &[i32]) -> (SelfSpeculation, Toy) {
    let settings = SpeculationSettings::new(LAYERS, 2).unwrap().with_stop_ids(stops);
    let speculation = SelfSpeculation::new(settings, 1, 60).unwrap();
    let toy = Toy::new(2, speculation.exit_ring(), false);
    (speculation, toy)
}

fn finish_all(speculation: &mut SelfSpeculation, toy: &mut Toy) -> Vec<i32> {
    let mut tokens = Vec::new();
    while speculation.is_any_active() {
        for progress in speculation.step(toy).unwrap() {
            tokens.extend(progress.tokens);
        }
    }
    tokens
}

#[test]
fn an_iteration_takes_one_call_for_each_draft_and_two_to_verify() {
    let (mut speculation, mut toy) = single(&[]);
    speculation.add(&[1, 2, 3], 40).unwrap();
    let progress = speculation.step(&mut toy).unwrap();
    assert_eq!((toy.calls, progress[0].drafted), (4 + 2, 4));
    speculation.set_draft_length(0, 0).unwrap();
    let progress = speculation.step(&mut toy).unwrap();
    assert_eq!((toy.calls, progress[0].drafted, progress[0].tokens.len()), (6 + 2, 0, 1));
}

#[test]
fn a_sequence_goes_on_behind_further_tokens() {
    let (mut speculation, mut toy) = single(&[]);
    speculation.add(&[1, 2, 3], 10).unwrap();
    let first = finish_all(&mut speculation, &mut toy);
    speculation.resume(0, &[4, 5], 12).unwrap();
    let second = finish_all(&mut speculation, &mut toy);
    let prompt = [&[1, 2, 3], &first[..], &[4, 5]].concat();
    assert_eq!(first, plain(2, false, &[1, 2, 3], 10, &[]));
    assert_eq!(second, plain(2, false, &prompt, 12, &[]));
    assert_eq!(speculation.cache().full_length(0), prompt.len() + 12 - 1);
}

#[test]
fn rows_without_a_token_end_a_draft_or_the_sequence() {
    let expected = plain(2, false, &[1, 2, 3], 20, &[]);
    let (mut speculation, mut toy) = single(&[]);
    speculation.add(&[1, 2, 3], 20).unwrap();
    // Nothing to draft behind position 9: the model itself decides there.
    toy.silent = [Some(9), None];
    assert_eq!(finish_all(&mut speculation, &mut toy), expected);

    let (mut speculation, mut toy) = single(&[]);
    speculation.add(&[1, 2, 3], 20).unwrap();
    toy.silent = [None, Some(9)];
    assert_eq!(finish_all(&mut speculation, &mut toy), expected[..7]);
    assert_eq!(speculation.finish(0), Some(Finish::InvalidRow));

    let (mut speculation, mut toy) = single(&[]);
    speculation.add(&[1, 2, 3], 20).unwrap();
    toy.silent = [None, Some(2)];
    assert!(finish_all(&mut speculation, &mut toy).is_empty());
    assert_eq!(speculation.finish(0), Some(Finish::InvalidRow));
}

#[test]
fn a_failed_step_changes_nothing() {
    let (mut speculation, mut toy) = single(&[]);
    speculation.add(&[1, 2, 3], 20).unwrap();
    speculation.step(&mut toy).unwrap();
    let (before, statistics) = (speculation.cache().clone(), speculation.statistics());
    for patience in 0..6 {
        toy.patience = Some(patience);
        assert!(matches!(speculation.step(&mut toy), Err(ToyError::Failed)), "{patience}");
        assert_eq!((speculation.cache(), speculation.statistics()), (&before, statistics));
    }
}

#[test]
fn bad_input_is_refused() {
    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, Error>, argument: &str, problem: Problem) {
        let error = result.unwrap_err();
        let Error::Argument { argument: named, problem: got, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((named.as_ref(), *got), (argument, problem), "{error}");
    }
    refused(SpeculationSettings::new(5, 0), "exit_layer", Problem::Value);
    refused(SpeculationSettings::new(5, 5), "exit_layer", Problem::Value);
    refused(SpeculationSettings::new(1, 1), "exit_layer", Problem::Value);
    let settings = SpeculationSettings::new(5, 2).unwrap();
    let new = |sequences, capacity| SelfSpeculation::new(settings.clone(), sequences, capacity);
    refused(new(0, 8), "sequences", Problem::Value);
    refused(new(8, 0), "capacity", Problem::Value);
    refused(new(1 << 16, 1 << 16), "positions", Problem::Size);
    let mut speculation = new(1, 8).unwrap();
    refused(speculation.add(&[], 5), "tokens", Problem::Value);
    refused(speculation.add(&[1, -1], 5), "tokens", Problem::Value);
    refused(speculation.add(&[1; 9], 5), "tokens", Problem::Size);
    speculation.add(&[1; 8], 5).unwrap();
    refused(speculation.add(&[1], 5), "sequences", Problem::Size);
    refused(speculation.remove(1), "sequence", Problem::Value);
    refused(speculation.set_draft_length(1, 2), "sequence", Problem::Value);
    refused(speculation.resume(1, &[1], 5), "sequence", Problem::Value);
    refused(speculation.resume(0, &[1], 5), "tokens", Problem::Size);
    assert_eq!((speculation.finish(0), speculation.finish(1)), (Some(Finish::Continue), None));
    speculation.remove(0).unwrap();
    assert!(!speculation.is_any_active());
}
