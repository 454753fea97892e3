//! The text as it grows, and how far it is.

use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokenizers::Tokenizer;

/// Of lines on a terminal.
const WIDTH: usize = 100;

/// Where a run's text goes: to a terminal with a bar below it, or to a pipe as it comes.
pub struct Screen<'a> {
    tokenizer: &'a Tokenizer,
    bar: Option<ProgressBar>,
    tokens: Vec<u32>,
    /// Bytes of the text that are out already.
    shown: usize,
}

impl<'a> Screen<'a> {
    /// For `length` tokens behind those of the prompt.
    pub fn new(tokenizer: &'a Tokenizer, name: &str, prompt: &[i32], length: usize) -> Screen<'a> {
        say(&format!("\n--- {name}\n"));
        let is_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bar = is_terminal.then(|| {
            let style =
                ProgressStyle::with_template("{msg}\n{bar:40} {pos}/{len} tokens {per_sec}");
            let bar =
                ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::stderr());
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let mut screen = Screen { tokenizer, bar, tokens: Vec::new(), shown: 0 };
        screen.write(prompt);
        screen
    }

    /// More tokens have come.
    pub fn show(&mut self, tokens: &[i32]) {
        if let Some(bar) = &self.bar {
            bar.inc(tokens.len() as u64);
        }
        self.write(tokens);
    }

    fn write(&mut self, tokens: &[i32]) {
        self.tokens.extend(tokens.iter().map(|&token| token as u32));
        let text = self.text();
        match &self.bar {
            Some(bar) => bar.set_message(wrapped(&text)),
            // A letter may be made of several tokens.
            None if !text.ends_with('\u{fffd}') => {
                say(text.get(self.shown..).unwrap_or_default());
                self.shown = text.len();
            }
            None => {}
        }
    }

    fn text(&self) -> String {
        self.tokenizer.decode(&self.tokens, true).unwrap_or_default()
    }

    /// Leaves the whole text.
    pub fn finish(self) {
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                say(&(wrapped(&self.text()) + "\n"));
            }
            None => say("\n"),
        }
    }
}

/// To standard output; a reader that has gone away is no reason to stop.
pub fn say(text: &str) {
    let mut output = std::io::stdout();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// In lines that a terminal does not break.
fn wrapped(text: &str) -> String {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join("\n")
}
