//! What runs took.

use serde_json::{Value, json};

/// Text that was generated, and how fast.
pub struct Run {
    pub name: String,
    pub tokens: Vec<i32>,
    /// Tokens and seconds behind the prompt and the tokens that came with it.
    pub timed: usize,
    pub seconds: f64,
    /// Those of them that went into MLPs.
    pub mlp_seconds: f64,
    pub speculation: Option<Speculation>,
}

/// What drafting brought.
pub struct Speculation {
    pub acceptance: f64,
    pub tokens_per_verification: f64,
    /// Whether the tokens are those of the same run without drafts.
    pub is_equal: bool,
}

impl Run {
    pub fn tokens_per_second(&self) -> f64 {
        self.timed as f64 / self.seconds
    }

    fn mlp_milliseconds_per_token(&self) -> f64 {
        1e3 * self.mlp_seconds / self.timed as f64
    }

    pub fn to_json(&self) -> Value {
        let speculation = self.speculation.as_ref();
        json!({
            "name": self.name,
            "tokens_per_second": self.tokens_per_second(),
            "mlp_milliseconds_per_token": self.mlp_milliseconds_per_token(),
            "acceptance": speculation.map(|it| it.acceptance),
            "tokens_per_verification": speculation.map(|it| it.tokens_per_verification),
            "equals_plain": speculation.map(|it| it.is_equal),
            "tokens": self.tokens,
        })
    }
}

/// A line for each run; rates beside the first one's.
pub fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "{:<36} {:>9} {:>8} {:>8} {:>11} {:>14} {:>11}\n",
        "", "tokens/s", "relative", "MLPs, ms", "acceptance", "tokens/verify", "same tokens"
    );
    let first = runs.first().map_or(f64::NAN, Run::tokens_per_second);
    for run in runs {
        let (acceptance, tokens, equal) = match &run.speculation {
            Some(Speculation { acceptance, tokens_per_verification, is_equal }) => (
                format!("{:.0} %", 100.0 * acceptance),
                format!("{tokens_per_verification:.2}"),
                if *is_equal { "yes" } else { "NO" },
            ),
            None => Default::default(),
        };
        let rate = run.tokens_per_second();
        let line = format!(
            "{:<36} {rate:>9.1} {:>7.2}x {:>8.2} {acceptance:>11} {tokens:>14} {equal:>11}",
            run.name,
            rate / first,
            run.mlp_milliseconds_per_token(),
        );
        text += line.trim_end();
        text += "\n";
    }
    text
}
