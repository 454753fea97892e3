//! Libraries of Python as contestants: scripts of this package run as coprocesses, and their own clocks count.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use siluette::DType;

use crate::measure::{Contestant, Failure};

/// A running script.
pub struct Coprocess {
    script: &'static str,
    /// Its libraries, as they tell it.
    pub versions: Vec<(String, String)>,
    pipes: RefCell<Pipes>,
}

/// Contestants of all scripts.
const CONTESTANTS: [&str; 4] = ["torch", "torch_prepacked", "openvino", "onnxruntime"];

struct Pipes {
    child: Child,
    script: &'static str,
    /// `None` once it was closed, which ends the script.
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What is to be run: the numbers are its dimensions' and that of the layers that take turns.
pub struct Case<'a> {
    pub op: &'a str,
    pub dtype: DType,
    pub dimensions: &'a [(&'a str, usize)],
}

impl Coprocess {
    /// Starts a script of this package's folder on as many threads as rayon has, on the same cores: those that the calling
    /// thread may use.
    pub fn start(python: &str, script: &'static str) -> Result<Coprocess, Failure> {
        let threads = rayon::current_num_threads();
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let places: Vec<String> =
            cores.iter().take(threads).map(|core| format!("{{{}}}", core.id)).collect();
        if places.len() < threads {
            let given = places.len();
            return Err(
                format!("{script} would share {given} cores among {threads} threads").into()
            );
        }
        let mut child = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
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
        let mut pipes = Pipes { child, script, questions, answers };
        let greeting = pipes.read()?;
        let pairs = greeting.split(' ').map(|pair| pair.split_once('='));
        let pairs: Option<Vec<_>> = pairs.collect();
        let versions = match pairs.as_deref() {
            Some([("threads", its_threads), versions @ ..]) => {
                if *its_threads != threads.to_string() {
                    let message = format!("{script} has {its_threads} threads, rayon {threads}");
                    return Err(message.into());
                }
                versions.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect()
            }
            _ => return Err(format!("{script} greets with `{greeting}`").into()),
        };
        Ok(Coprocess { script, versions, pipes: RefCell::new(pipes) })
    }

    /// Its ways to do it; none if it has no such operation.
    pub fn contestants(&self, case: &Case<'_>) -> Result<Vec<Contestant<'_>>, Failure> {
        let mut question = format!("prepare {} {}", case.op, case.dtype.name());
        for (name, size) in case.dimensions {
            write!(question, " {name}={size}")?;
        }
        let answer = self.ask(&question)?;
        let is_named = |name: &&str| answer.split(' ').any(|word| word == *name);
        let named = CONTESTANTS.into_iter().filter(is_named);
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
        let questions = pipes.questions.as_mut().ok_or("the coprocess was ended")?;
        writeln!(questions, "{question}")?;
        let answer = pipes.read()?;
        match answer.strip_prefix("error ") {
            Some(message) => Err(format!("{}, `{question}`: {message}", self.script).into()),
            None => Ok(answer),
        }
    }
}

/// How long the idle threads of OpenMP look for work before they sleep: some hundred microseconds, enough from one product of a block
/// to the next, and over before the next contestant starts. In a loop without end they would take its cores; without any,
/// the library would have to wake them for each product. What the caller's environment says goes before.
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
            return Err(format!("{} ended; what it printed says why", self.script).into());
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
