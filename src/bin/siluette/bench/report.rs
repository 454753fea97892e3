//! The results as a table and as JSON.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use siluette::Cost;

use super::measure::Timing;
use super::{Roof, Row};
use crate::devices::{self, Opened};
use crate::output;

impl Row {
    /// Percent of the roofline that a run of this many seconds reached.
    fn percent(
        &self,
        roofs: &[Roof],
        cost: &Cost,
        seconds: f64,
        memory: Option<f64>,
    ) -> Option<f64> {
        let roof = roofs.iter().find(|roof| roof.backend == self.backend)?;
        Some(100.0 * roof.ceilings.shortest(cost, &self.dtype, memory) / seconds)
    }
}

pub fn to_text(devices: &[Opened], roofs: &[Roof], rows: &[Row]) -> String {
    let mut text = String::new();
    for roof in roofs {
        let device = devices.iter().find(|opened| opened.backend == roof.backend);
        let name =
            device.and_then(|opened| opened.device.as_ref().ok()).map(|device| device.name());
        let ceilings = &roof.ceilings;
        let bf16 = ceilings
            .bf16_flops_per_second
            .map_or_else(String::new, |flops| format!(", bf16 {:.1} GFLOP/s", flops / 1e9));
        let flops = match ceilings.flops_per_second {
            Some(flops) => format!("f32 {:.1} GFLOP/s{bf16}, {}", flops / 1e9, ceilings.flops_how),
            None => ceilings.flops_how.to_owned(),
        };
        text += &format!(
            "{}: {}\n  memory: {:.1} GB/s, {}\n  arithmetic: {flops}\n",
            roof.backend,
            name.unwrap_or_default(),
            ceilings.bytes_per_second / 1e9,
            ceilings.bytes_how,
        );
    }
    let heading = [
        "backend",
        "operation",
        "dtype",
        "case",
        "cold us",
        "min us",
        "GB/s",
        "GFLOP/s",
        "% roof",
        "hot us",
        "hot GB/s",
    ];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().filter_map(|row| line(row, roofs)));
    text += &format!("\n{}", output::table(&lines, 4));
    for row in rows {
        if let Err(error) = &row.outcome {
            text += &format!("{} {} {} {}: {error}\n", row.backend, row.op, row.dtype, row.case);
        }
    }
    text
}

fn line(row: &Row, roofs: &[Roof]) -> Option<Vec<String>> {
    let (cost, measurement) = row.outcome.as_ref().ok()?;
    let cold = measurement.cold;
    let percent = row.percent(roofs, cost, cold.median, measurement.memory);
    let hot = |value: fn(&Cost, &Timing) -> f64| {
        measurement.hot.map_or_else(|| "-".to_owned(), |hot| format!("{:.1}", value(cost, &hot)))
    };
    Some(vec![
        row.backend.name().to_owned(),
        row.op.to_owned(),
        row.dtype.clone(),
        row.case.clone(),
        format!("{:.1}", cold.median * 1e6),
        format!("{:.1}", cold.min * 1e6),
        format!("{:.1}", cost.bytes() as f64 / cold.median / 1e9),
        format!("{:.1}", cost.flops as f64 / cold.median / 1e9),
        percent.map_or_else(String::new, |percent| format!("{percent:.0}")),
        hot(|_, timing| timing.median * 1e6),
        hot(|cost, timing| cost.bytes() as f64 / timing.median / 1e9),
    ])
}

/// `complete` tells the whole from what an interrupted run left.
pub fn to_json(devices: &[Opened], roofs: &[Roof], rows: &[Row], complete: bool) -> Value {
    let ceilings: Map<String, Value> = roofs
        .iter()
        .map(|roof| {
            let ceilings = &roof.ceilings;
            let value = json!({
                "bytes_per_second": ceilings.bytes_per_second,
                "bytes_how": ceilings.bytes_how,
                "flops_per_second": ceilings.flops_per_second,
                "bf16_flops_per_second": ceilings.bf16_flops_per_second,
                "flops_how": ceilings.flops_how,
            });
            (roof.backend.name().to_owned(), value)
        })
        .collect();
    let results: Vec<Value> = rows.iter().map(|row| row_to_json(row, roofs)).collect();
    json!({
        "device": devices::to_json(devices),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit(),
        "date": date(SystemTime::now()),
        "command": command(),
        "complete": complete,
        "ceilings": ceilings,
        "results": results,
    })
}

fn row_to_json(row: &Row, roofs: &[Roof]) -> Value {
    let mut value = json!({
        "op": row.op,
        "backend": row.backend.name(),
        "dtype": row.dtype,
        "case": row.case,
    });
    match &row.outcome {
        Err(error) => value["error"] = error.to_string().into(),
        Ok((cost, measurement)) => {
            value["flops"] = cost.flops.into();
            value["bytes_read"] = cost.bytes_read.into();
            value["bytes_written"] = cost.bytes_written.into();
            value["cold_bytes"] = measurement.cold_bytes.into();
            value["launches"] = measurement.launches.into();
            let cold = &measurement.cold;
            value["memory_bytes_per_second"] = measurement.memory.into();
            value["cold"] = timing_to_json(cost, cold);
            value["cold"]["roofline_percent"] =
                row.percent(roofs, cost, cold.median, measurement.memory).into();
            value["hot"] = measurement.hot.map(|hot| timing_to_json(cost, &hot)).into();
        }
    }
    value
}

fn timing_to_json(cost: &Cost, timing: &Timing) -> Value {
    json!({
        "median_seconds": timing.median,
        "min_seconds": timing.min,
        "samples": timing.samples,
        "bytes_per_second": cost.bytes() as f64 / timing.median,
        "flops_per_second": cost.flops as f64 / timing.median,
    })
}

/// The commit that was built: from the environment, or asked of the source tree if it is still there.
fn commit() -> Option<String> {
    if let Ok(commit) = std::env::var("SILUETTE_COMMIT") {
        return Some(commit);
    }
    let describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    let answer = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(describe)
        .output()
        .ok()
        .filter(|answer| answer.status.success())?;
    Some(String::from_utf8(answer.stdout).ok()?.trim().to_owned())
}

/// The command line without this machine's folders, which are nobody's business.
fn command() -> String {
    let words = std::env::args().map(|word| match Path::new(&word) {
        path if path.is_absolute() => {
            path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
        _ => word,
    });
    words.collect::<Vec<String>>().join(" ")
}

/// UTC, as RFC 3339 writes it.
fn date(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let time = seconds % 86_400;
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since 1970-01-01 as a date (Hinnant's `civil_from_days`): years begin in March, so that the leap day
/// is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leap_days = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_740_787_200, "2025-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
