//! Parameters of operations as text, as they come from the command line and the case list.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::error::{Error, Problem};

/// A parameter of an operation, as documented and as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParameterInfo {
    /// Its name in `--param name=value`.
    pub name: &'static str,
    /// What may be given.
    pub values: &'static str,
    /// Taken when nothing is given; empty where the default depends on the tensors.
    pub default: &'static str,
    /// Meaning and unit.
    pub description: &'static str,
}

/// Values given for an operation's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    values: BTreeMap<String, String>,
}

impl Parameters {
    /// No values: every parameter takes its default.
    pub fn new() -> Parameters {
        Parameters::default()
    }

    /// Adds or replaces a value.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Parameters {
        self.values.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The values given, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Refuses values that the operation has no parameter for.
    pub(crate) fn check_names(
        &self,
        op: &'static str,
        infos: &[ParameterInfo],
    ) -> Result<(), Error> {
        let known = || infos.iter().map(|info| info.name).collect::<Vec<_>>().join(", ");
        match self.values.keys().find(|name| infos.iter().all(|info| info.name != *name)) {
            None => Ok(()),
            Some(name) => Err(Error::argument(
                op,
                "param",
                Problem::Unexpected,
                format_args!("one of: {}", known()),
                format_args!("`{name}`"),
                "",
            )),
        }
    }

    /// A value that [`FromStr`] understands, or `None` if it was not given.
    pub(crate) fn parse<T: FromStr>(
        &self,
        op: &'static str,
        info: &ParameterInfo,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.values.get(info.name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| Error::argument(op, info.name, Problem::Value, info.values, text, ""))
    }

    /// One of a list of named choices, or `None` if it was not given.
    pub(crate) fn choose<T: Copy>(
        &self,
        op: &'static str,
        info: &ParameterInfo,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.values.get(info.name) else { return Ok(None) };
        choices
            .iter()
            .find(|(name, _)| name == text)
            .map(|&(_, value)| Some(value))
            .ok_or_else(|| Error::argument(op, info.name, Problem::Value, info.values, text, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPS: ParameterInfo =
        ParameterInfo { name: "eps", values: "a number", default: "1e-5", description: "" };

    #[test]
    fn unknown_names_and_values_are_refused() {
        let parameters = Parameters::new().with("eps", "1e-6");
        assert_eq!(parameters.parse::<f32>("op", &EPS).unwrap(), Some(1e-6));
        assert!(parameters.check_names("op", &[EPS]).is_ok());
        let error = parameters.check_names("op", &[]).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Unexpected));
        let error = Parameters::new().with("eps", "small").parse::<f32>("op", &EPS).unwrap_err();
        assert_eq!(error.problem(), Some(Problem::Value));
    }
}
