//! How alike texts are, end to end: words to vectors, word attention between two texts as in ESIM (Chen et al. 2017),
//! selective feature attention over what it finds, and a cosine.
//!
//! ```sh
//! cargo run --release --features safetensors --example text_matching
//! cargo run --release --features safetensors --example text_matching -- "a text" "another" "a third"
//! cargo run --release --features safetensors --example text_matching -- --weights model.safetensors --prefix sfa.
//! ```
//!
//! Nothing is downloaded, so nothing here has been trained: a word's vector is made from its letters (see [`word`]), and
//! the weights of the attention are drawn at random, as PyTorch would start with them. What the scores tell is therefore
//! how much texts share in words and spelling, not in meaning. With `--weights` the weights of a trained module of 600
//! features take their place; vectors would have to be those that it was trained on.

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use siluette::{
    Cpu, DType, Error, SelectiveFeatureAttentionWeights, TensorMut, TensorRef, Workspace,
};

/// Features of a word.
const WORD: usize = 150;
/// Of a word after attention: itself, what answers it, their difference and product.
const FEATURES: usize = 4 * WORD;

fn main() -> Result<(), Error> {
    let mut texts = Vec::new();
    let (mut weights, mut prefix) = (None, String::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--weights" => weights = arguments.next(),
            "--prefix" => prefix = arguments.next().unwrap_or_default(),
            _ => texts.push(argument),
        }
    }
    if texts.len() < 2 {
        texts = [
            "A man is playing a guitar on the stage.",
            "On a stage, a man plays the guitar.",
            "A woman is slicing onions in a kitchen.",
            "The guitarist performs.",
            "Men played guitars on stages!",
        ]
        .map(String::from)
        .to_vec();
    }
    let dtype = DType::F32;
    let weights = match weights {
        Some(path) => SelectiveFeatureAttentionWeights::load(path, &prefix, dtype, dtype)?,
        None => SelectiveFeatureAttentionWeights::from_safetensors(&untrained(), "", dtype, dtype)?,
    };
    let texts: Vec<(String, Vec<[f32; WORD]>)> =
        texts.into_iter().map(|text| (text.clone(), words(&text))).collect();
    let (first, others) = texts.split_first().expect("two texts at least");
    println!("{:?} is alike", first.0);
    for other in others {
        println!("  {:.3}  {:?}", similarity(&weights, &first.1, &other.1)?, other.0);
    }
    let same = similarity(&weights, &first.1, &first.1)?;
    let forward = similarity(&weights, &first.1, &others[0].1)?;
    let reverse = similarity(&weights, &others[0].1, &first.1)?;
    assert!((same - 1.0).abs() < 1e-5, "a text is as alike itself as can be");
    assert!((forward - reverse).abs() < 1e-5, "it does not matter which text comes first");
    Ok(())
}

/// The vectors of a text's words.
fn words(text: &str) -> Vec<[f32; WORD]> {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|text| !text.is_empty())
        .map(|text| word(&text.to_lowercase()))
        .collect()
}

/// The sum of a random direction for each run of three letters, scaled to length 1: words that are spelt alike get
/// vectors that are alike, and others nearly orthogonal ones (as fastText does it, but for the training).
fn word(text: &str) -> [f32; WORD] {
    let letters: Vec<char> = format!("<{text}>").chars().collect();
    let mut vector = [0.0; WORD];
    for letters in letters.windows(3) {
        let seed = letters.iter().fold(7, |seed: u64, &letter| {
            seed.wrapping_mul(1_000_003).wrapping_add(u64::from(letter))
        });
        for (sum, value) in vector.iter_mut().zip(Random(seed)) {
            *sum += value;
        }
    }
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.map(|value| value / length)
}

/// Numbers between -1 and 1 (SplitMix64, Steele et al. 2014).
struct Random(u64);

impl Iterator for Random {
    type Item = f32;

    fn next(&mut self) -> Option<f32> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Some((bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
    }
}

/// Both texts through word attention and selective feature attention, as one padded batch; the cosine of their means.
fn similarity(
    weights: &SelectiveFeatureAttentionWeights,
    a: &[[f32; WORD]],
    b: &[[f32; WORD]],
) -> Result<f32, Error> {
    let longest = a.len().max(b.len());
    let shape = [2, longest, FEATURES];
    let (mut x, mut out) = (vec![0.0; 2 * longest * FEATURES], vec![0.0; 2 * longest * FEATURES]);
    let (of_a, of_b) = x.split_at_mut(longest * FEATURES);
    attend(a, b, of_a);
    attend(b, a, of_b);
    let lengths = [a.len() as i32, b.len() as i32];
    let args = weights
        .args(TensorRef::new(&x, &shape)?, TensorMut::new(&mut out, &shape)?)
        .lengths(TensorRef::new(&lengths, &[2])?);
    let mut workspace = Workspace::default();
    Cpu::new().selective_feature_attention(&weights.descriptor(), args, &mut workspace)?;
    let mean = |text: usize| -> Vec<f32> {
        let rows = out[text * longest * FEATURES..][..longest * FEATURES].chunks(FEATURES);
        let mut sum = vec![0.0; FEATURES];
        // Rows behind a text's end are 0.
        rows.for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value));
        sum.iter().map(|sum| sum / lengths[text].max(1) as f32).collect()
    };
    let (a, b) = (mean(0), mean(1));
    Ok(dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt())
}

/// For each word what answers it in the other text, and how they compare: `[a, b~, a - b~, a * b~]` with `b~` the mean of
/// the other text's words, weighed by a softmax of their products with the word.
fn attend(text: &[[f32; WORD]], other: &[[f32; WORD]], rows: &mut [f32]) {
    const SHARPNESS: f32 = 8.0;
    for (word, row) in text.iter().zip(rows.chunks_mut(FEATURES)) {
        let scores: Vec<f32> =
            other.iter().map(|answer| (SHARPNESS * dot(word, answer)).exp()).collect();
        let whole: f32 = scores.iter().sum();
        let mut answer = [0.0; WORD];
        for (other, score) in other.iter().zip(&scores) {
            answer.iter_mut().zip(other).for_each(|(sum, value)| *sum += score / whole * value);
        }
        for (feature, (a, b)) in word.iter().zip(answer).enumerate() {
            row[feature] = *a;
            row[WORD + feature] = b;
            row[2 * WORD + feature] = a - b;
            row[3 * WORD + feature] = a * b;
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A file of a module before training: weights drawn evenly, within the root of one over the inputs, as PyTorch does it;
/// biases of 0, since drawn at random they would be most of what any two texts have in common.
fn untrained() -> Vec<u8> {
    let (reduced, squeezed, hidden) = (100, 60, 50);
    let mut random = Random(1);
    let mut entries: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut draw = |name: String, shape: &[usize], inputs: usize| {
        let scale = (inputs as f32).sqrt().recip();
        let count = shape.iter().product();
        let is_bias = shape.len() == 1;
        let value = |drawn: f32| if is_bias { 0.0 } else { drawn * scale };
        let values = random.by_ref().take(count).flat_map(|drawn| value(drawn).to_le_bytes());
        entries.push((name, shape.to_vec(), values.collect()));
    };
    for (name, outputs, inputs) in [
        ("auto_encoder_start".to_owned(), reduced, FEATURES),
        ("auto_encoder_end".to_owned(), FEATURES, reduced),
        ("dense_z.0".to_owned(), squeezed, reduced),
        ("dense_select_weights.0.0".to_owned(), reduced, squeezed),
        ("dense_select_weights.1.0".to_owned(), reduced, squeezed),
        ("dense_select_weights.2.0".to_owned(), reduced, squeezed),
    ] {
        draw(format!("{name}.weight"), &[outputs, inputs], inputs);
        draw(format!("{name}.bias"), &[outputs], inputs);
    }
    for (branch, direction) in (0..3).flat_map(|branch| ["", "_reverse"].map(|name| (branch, name)))
    {
        let name = |tensor| format!("seq2seq_layers.{branch}.{tensor}_l0{direction}");
        draw(name("weight_ih"), &[3 * hidden, reduced], hidden);
        draw(name("weight_hh"), &[3 * hidden, hidden], hidden);
        draw(name("bias_ih"), &[3 * hidden], hidden);
        draw(name("bias_hh"), &[3 * hidden], hidden);
    }
    let views = entries.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as long as its shape"))
    });
    safetensors::serialize(views, None).expect("names are different")
}
