//! PyTorch as a contestant: `torch_peer.py` runs as a coprocess, and its own clock counts.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use siluette::DType;

use crate::measure::{Contestant, Failure};

/// A Python that has torch, and its script.
pub struct Torch {
    /// As torch tells it.
    pub version: String,
    pipes: RefCell<Pipes>,
}

struct Pipes {
    child: Child,
    /// `None` once it was closed, which ends the script.
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What torch is to run: the numbers are its dimensions' and that of the layers that take turns.
pub struct Case<'a> {
    pub op: &'a str,
    pub dtype: DType,
    pub dimensions: &'a [(&'a str, usize)],
}

impl Torch {
    /// Starts it on as many threads as rayon has, on the same cores: those that the calling thread may use.
    pub fn start(python: &str) -> Result<Torch, Failure> {
        let threads = rayon::current_num_threads();
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let places: Vec<String> =
            cores.iter().take(threads).map(|core| format!("{{{}}}", core.id)).collect();
        if places.len() < threads {
            let given = places.len();
            return Err(format!("torch would share {given} cores among {threads} threads").into());
        }
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/torch_peer.py"))
            .env("OMP_NUM_THREADS", threads.to_string())
            .env("OMP_PLACES", places.join(","))
            .env("OMP_PROC_BIND", "close")
            .envs(brief_waits())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{python} could not be started: {error}"))?;
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("a process without output")?);
        let mut pipes = Pipes { child, questions, answers };
        let greeting = pipes.read()?;
        let [version, its_threads] = match *greeting.split(' ').collect::<Vec<_>>() {
            ["torch", version, threads] => [version.to_owned(), threads.to_owned()],
            _ => return Err(format!("torch_peer.py greets with `{greeting}`").into()),
        };
        if its_threads != threads.to_string() {
            return Err(format!("torch has {its_threads} threads, rayon {threads}").into());
        }
        Ok(Torch { version, pipes: RefCell::new(pipes) })
    }

    /// Torch's ways to do it.
    pub fn contestants(&self, case: &Case<'_>) -> Result<Vec<Contestant<'_>>, Failure> {
        let mut question = format!("prepare {} {}", case.op, case.dtype.name());
        for (name, size) in case.dimensions {
            write!(question, " {name}={size}")?;
        }
        let answer = self.ask(&question)?;
        let known = ["torch", "torch_prepacked"];
        let named = known.into_iter().filter(|name| answer.split(' ').any(|word| word == *name));
        let contestant = |name| {
            Contestant::new(name, move |layer| {
                Ok(self.ask(&format!("run {name} {layer}"))?.parse::<f64>()?)
            })
        };
        Ok(named.map(contestant).collect())
    }

    /// Frees what was prepared, weights included.
    pub fn release(&self) -> Result<(), Failure> {
        self.ask("drop").map(drop)
    }

    fn ask(&self, question: &str) -> Result<String, Failure> {
        let mut pipes = self.pipes.borrow_mut();
        let questions = pipes.questions.as_mut().ok_or("torch_peer.py was ended")?;
        writeln!(questions, "{question}")?;
        let answer = pipes.read()?;
        match answer.strip_prefix("error ") {
            Some(message) => Err(format!("torch, `{question}`: {message}").into()),
            None => Ok(answer),
        }
    }
}

/// How long torch's idle threads look for work before they sleep: some hundred microseconds, enough from one product of a block
/// to the next, and over before the next contestant starts. In a loop without end they would take its cores; without any,
/// torch would have to wake them for each product. What the caller's environment says goes before.
fn brief_waits() -> Vec<(&'static str, &'static str)> {
    // GNU's library of OpenMP counts rounds, Intel's milliseconds.
    let settings = [("GOMP_SPINCOUNT", "10000"), ("KMP_BLOCKTIME", "1")];
    let is_free = |name: &str| std::env::var_os(name).is_none();
    let are_ours = is_free("OMP_WAIT_POLICY");
    settings.into_iter().filter(|(name, _)| are_ours && is_free(name)).collect()
}

impl Pipes {
    fn read(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("torch_peer.py ended; what it printed says why".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        self.questions = None;
        // It ends at the end of its input; how is nobody's concern any more.
        let _ = self.child.wait();
    }
}
