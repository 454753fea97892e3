//! `siluette prune`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use siluette::{IndexSet, LayerIndexSets, ModelIndexSets};
use tempfile::TempDir;

use super::{assert_exit, siluette, text};

const WIDTH: usize = 8;
const NEURONS: usize = 12;
const LAYERS: usize = 2;

/// Matrices of a layer: name, rows, columns. Two heads of four for queries, one for keys and values.
const MATRICES: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj.weight", 8, WIDTH),
    ("self_attn.k_proj.weight", 4, WIDTH),
    ("self_attn.v_proj.weight", 4, WIDTH),
    ("self_attn.o_proj.weight", WIDTH, 8),
    ("mlp.gate_proj.weight", NEURONS, WIDTH),
    ("mlp.up_proj.weight", NEURONS, WIDTH),
    ("mlp.down_proj.weight", WIDTH, NEURONS),
];

/// A tensor in f32: every value tells its tensor, row and column.
type Named = (String, Vec<usize>, Vec<f32>);

fn layer_tensors(layer: usize) -> Vec<Named> {
    let mut tensors: Vec<Named> = Vec::new();
    for (place, (name, rows, columns)) in MATRICES.into_iter().enumerate() {
        let start = (layer * 10 + place + 1) as f32 * 1000.0;
        let values = (0..rows * columns).map(|index| start + index as f32).collect();
        tensors.push((format!("model.layers.{layer}.{name}"), vec![rows, columns], values));
    }
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        let norm = format!("model.layers.{layer}.{norm}.weight");
        tensors.push((norm, vec![WIDTH], vec![1.5; WIDTH]));
    }
    let bias = format!("model.layers.{layer}.mlp.down_proj.bias");
    tensors.push((bias, vec![WIDTH], (0..WIDTH).map(|index| index as f32).collect()));
    tensors
}

fn save(path: &Path, tensors: &[Named]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn load(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |view: &TensorView<'_>| {
        view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(&view))))
        .collect()
}

/// A folder with a model in two files, and room for outputs.
struct Scene {
    root: TempDir,
}

impl Scene {
    fn new() -> Scene {
        let scene = Scene { root: tempfile::tempdir().unwrap() };
        std::fs::create_dir(scene.path("model")).unwrap();
        let config = serde_json::json!({
            "num_hidden_layers": LAYERS, "hidden_size": WIDTH, "intermediate_size": NEURONS,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 3,
        });
        std::fs::write(scene.path("model/config.json"), config.to_string()).unwrap();
        std::fs::write(scene.path("model/tokenizer.json"), "{}").unwrap();
        let mut places = serde_json::Map::new();
        for layer in 0..LAYERS {
            let file = format!("model-{layer}.safetensors");
            let mut tensors = layer_tensors(layer);
            if layer == 0 {
                tensors.push(("model.embed_tokens.weight".into(), vec![3, WIDTH], vec![0.5; 24]));
            }
            save(&scene.path("model").join(&file), &tensors);
            places.extend(tensors.iter().map(|(name, ..)| (name.clone(), file.clone().into())));
        }
        let index = serde_json::json!({ "weight_map": places }).to_string();
        std::fs::write(scene.path("model/model.safetensors.index.json"), index).unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes index sets and returns the file's name.
    fn sets(&self, sets: &ModelIndexSets) -> &'static str {
        std::fs::write(self.path("masks"), sets.to_safetensors().unwrap()).unwrap();
        "masks"
    }

    /// `siluette prune --model model --output out`, with files named within the scene.
    fn prune(&self, arguments: &[&str]) -> std::process::Output {
        let path = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let (model, out) = (path("model"), path("out"));
        let mut words = vec!["prune".to_owned(), "--model".into(), model, "--output".into(), out];
        words.extend(arguments.iter().map(|word| {
            if ["masks", "scores"].contains(word) { path(word) } else { (*word).to_owned() }
        }));
        siluette(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// That a run is refused with these words and leaves the folder as it was.
    #[track_caller]
    fn assert_refused(&self, arguments: &[&str], words: &str) {
        let names = || {
            let entries = std::fs::read_dir(self.root.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let output = self.prune(arguments);
        assert_exit(&output, 2);
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
        assert_eq!(names(), before);
    }
}

fn set(indices: &[u32], domain: usize) -> IndexSet {
    IndexSet::new(indices.to_vec(), domain).unwrap()
}

fn sets() -> ModelIndexSets {
    let first = LayerIndexSets {
        attention_in: set(&[0, 3, 7], WIDTH),
        attention_out: set(&[1], WIDTH),
        mlp_in: set(&[2, 5], WIDTH),
        mlp_mid: set(&[0, 4, 11], NEURONS),
        mlp_out: set(&[6, 7], WIDTH),
    };
    let second = LayerIndexSets {
        attention_in: IndexSet::full(WIDTH).unwrap(),
        attention_out: IndexSet::full(WIDTH).unwrap(),
        mlp_in: IndexSet::full(WIDTH).unwrap(),
        mlp_mid: IndexSet::empty(NEURONS).unwrap(),
        mlp_out: set(&[0], WIDTH),
    };
    ModelIndexSets::new(vec![first, second]).unwrap()
}

/// Rows and columns of a matrix, by hand.
fn cut(values: &[f32], columns: usize, kept_rows: &[u32], kept_columns: &[u32]) -> Vec<f32> {
    let row = |row: &u32| &values[*row as usize * columns..][..columns];
    let rows = kept_rows.iter().map(row);
    rows.flat_map(|row| kept_columns.iter().map(|column| row[*column as usize])).collect()
}

#[test]
fn masks_compact_every_matrix_and_nothing_else() {
    let scene = Scene::new();
    let output = scene.prune(&["--masks", scene.sets(&sets())]);
    assert_exit(&output, 0);
    assert!(text(&output.stdout).contains("2/8"), "{}", text(&output.stdout));

    let whole = scene.path("out");
    let file = std::fs::read(whole.join("index_sets.safetensors")).unwrap();
    assert_eq!(ModelIndexSets::from_safetensors(&file).unwrap(), sets());
    assert!(whole.join("tokenizer.json").exists());
    let config = std::fs::read(whole.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["hidden_size"], WIDTH);
    assert_eq!(config["siluette"]["layers"][0]["mlp_mid"], 3);

    let all = |count: usize| (0..count as u32).collect::<Vec<_>>();
    let kept = sets();
    for layer in 0..LAYERS {
        let result = load(&whole.join(format!("model-{layer}.safetensors")));
        let [s1, s2, s3, s4, s5] = kept.layers()[layer].sets().map(|set| set.indices().to_vec());
        for (name, shape, values) in layer_tensors(layer) {
            let (rows, columns) = match name.split('.').nth_back(1).unwrap() {
                "q_proj" | "k_proj" | "v_proj" => (all(shape[0]), s1.clone()),
                "o_proj" => (s2.clone(), all(shape[1])),
                "gate_proj" | "up_proj" => (s4.clone(), s3.clone()),
                "down_proj" if name.ends_with("bias") => (vec![0], s5.clone()),
                "down_proj" => (s5.clone(), s4.clone()),
                _ => (vec![0], all(shape[0])),
            };
            let expected = cut(&values, *shape.last().unwrap(), &rows, &columns);
            let (got_shape, got) = &result[&name];
            assert_eq!(got_shape.iter().product::<usize>(), expected.len(), "{name}");
            assert_eq!(*got, expected, "{name}");
            if shape.len() == 2 {
                assert_eq!(*got_shape, [rows.len(), columns.len()], "{name}");
            }
        }
    }
    let first = load(&whole.join("model-0.safetensors"));
    assert_eq!(first["model.embed_tokens.weight"], (vec![3, WIDTH], vec![0.5; 24]));
}

#[test]
fn a_budget_keeps_the_heaviest() {
    let scene = Scene::new();
    let output = scene.prune(&["--budget", "0.25"]);
    assert_exit(&output, 0);
    let file = std::fs::read(scene.path("out/index_sets.safetensors")).unwrap();
    let sets = ModelIndexSets::from_safetensors(&file).unwrap();
    // Values grow with row and column: the last features and neurons are the heaviest.
    let layer = &sets.layers()[0];
    assert_eq!(layer.attention_in.indices(), [6, 7]);
    assert_eq!(layer.mlp_out.indices(), [4, 5, 6, 7]);
    assert_eq!(layer.mlp_mid.indices(), [6, 7, 8, 9, 10, 11]);
    assert_eq!(layer.mlp_share(), 0.25);
    std::fs::remove_dir_all(scene.path("out")).unwrap();
    scene.assert_refused(&["--budget", "1.5"], "budget");
    scene.assert_refused(&["--budget", "NaN"], "budget");
}

#[test]
fn a_pruned_model_computes_what_the_masked_model_does() {
    let scene = Scene::new();
    assert_exit(&scene.prune(&["--masks", scene.sets(&sets())]), 0);
    let path = |name: &str| scene.path(name).to_str().unwrap().to_owned();
    let (model, pruned) = (path("model"), path("out"));
    let arguments = ["verify", "--backend", "cpu", "--model", &model, "--pruned", &pruned];
    let output = siluette(&arguments);
    assert_exit(&output, 0);
    assert!(text(&output.stdout).contains("pruned_gated_mlp"), "{}", text(&output.stdout));

    // One wrong weight is noticed.
    let file = scene.path("out/model-0.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let name = "model.layers.0.mlp.down_proj.weight";
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data();
    let at = data.as_ptr() as usize - bytes.as_ptr() as usize;
    bytes[at..at + 4].copy_from_slice(&1e6f32.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    assert_exit(&siluette(&arguments), 1);

    let dense = ["verify", "--backend", "cpu", "--model", &model, "--pruned", &model];
    let output = siluette(&dense);
    assert_exit(&output, 2);
    assert!(text(&output.stderr).contains("index_sets.safetensors"), "{}", text(&output.stderr));
}

#[test]
fn a_dry_run_writes_nothing() {
    let scene = Scene::new();
    let output = scene.prune(&["--budget", "0.5", "--dry-run"]);
    assert_exit(&output, 0);
    assert!(text(&output.stdout).contains("are left"));
    assert!(!scene.path("out").exists());
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let scene = Scene::new();
    scene.assert_refused(&[], "masks");
    std::fs::write(scene.path("masks"), "no tensors").unwrap();
    scene.assert_refused(&["--masks", "masks"], "masks");
    let one_layer = ModelIndexSets::new(sets().layers()[..1].to_vec()).unwrap();
    scene.assert_refused(&["--masks", scene.sets(&one_layer)], "1 layers");
    scene.sets(&sets());
    scene.assert_refused(&["--masks", "masks", "--param", "p=1"], "param");
    scene.assert_refused(&["--method", "dean"], "scores");

    std::fs::create_dir(scene.path("out")).unwrap();
    scene.assert_refused(&["--masks", "masks"], "exists");
    std::fs::remove_dir(scene.path("out")).unwrap();

    let config = std::fs::read_to_string(scene.path("model/config.json")).unwrap();
    let other = config.replace("\"intermediate_size\":12", "\"intermediate_size\":13");
    std::fs::write(scene.path("model/config.json"), other).unwrap();
    scene.assert_refused(&["--masks", "masks"], "mlp.gate_proj.weight");
}

#[test]
fn coupled_neurons_are_zeroed() {
    let scene = Scene::new();
    let name = "model.layers.1.mlp.up_proj.weight";
    let score = |kept: &[usize]| {
        let mut values = vec![0f32; NEURONS * WIDTH];
        kept.iter().for_each(|&index| values[index] = 1.0);
        values
    };
    let shape = vec![NEURONS, WIDTH];
    let scores = [
        (format!("general.{name}"), shape.clone(), score(&[5])),
        (format!("first.{name}"), shape.clone(), score(&[5, 9, 40])),
        (format!("second.{name}"), shape, score(&[5, 40, 77])),
    ];
    save(&scene.path("scores"), &scores);
    let dean = ["--method", "dean", "--scores", "scores"];
    let parameters = ["--param", "p=0.011", "--param", "q=0.032"];
    let output = scene.prune(&[&dean[..], &parameters[..]].concat());
    assert_exit(&output, 0);
    assert!(text(&output.stdout).contains("1 entries"), "{}", text(&output.stdout));
    let result = load(&scene.path("out/model-1.safetensors"));
    for (tensor, _, mut values) in layer_tensors(1) {
        if tensor == name {
            values[40] = 0.0;
        }
        assert_eq!(result[&tensor].1, values, "{tensor}");
    }
    std::fs::remove_dir_all(scene.path("out")).unwrap();
    scene.assert_refused(&[&dean[..], &["--param", "p=2"]].concat(), "p");
    save(&scene.path("scores"), &scores[..2]);
    scene.assert_refused(&dean, "second.");
    save(&scene.path("scores"), &[(format!("third.{name}"), vec![1], vec![0.0])]);
    scene.assert_refused(&dean, "third.");
}
