//! The roofline as SVG: attainable arithmetic against arithmetic done for each byte moved, log-log.

use std::path::Path;

use plotters::prelude::*;
use siluette::{Backend, Error};

use super::{Roof, Row};
use crate::output::file_error;

const SIZE: (u32, u32) = (1_400, 900);
/// Room on the right for the list of points.
const KEY_WIDTH: u32 = 520;
const KEY_LINE: i32 = 16;

/// A measured operation.
struct Point {
    backend: Backend,
    label: String,
    /// FLOP a byte.
    intensity: f64,
    gflops: f64,
}

pub fn roofline(roofs: &[Roof], rows: &[Row]) -> Result<String, Error> {
    let points: Vec<Point> = rows.iter().filter_map(point).collect();
    let mut svg = String::new();
    draw(&mut svg, roofs, &points)
        .map_err(|error| file_error(Path::new("plot"), format!("cannot be drawn: {error}"), ""))?;
    Ok(svg)
}

fn point(row: &Row) -> Option<Point> {
    let (cost, measurement) = row.outcome.as_ref().ok()?;
    Some(Point {
        backend: row.backend,
        label: format!("{} {} {} {}", row.backend, row.op, row.dtype, row.case),
        intensity: cost.flops as f64 / cost.bytes().max(1) as f64,
        gflops: cost.flops as f64 / measurement.cold.median / 1e9,
    })
}

fn colour(backend: Backend) -> RGBColor {
    match backend {
        Backend::Reference => RGBColor(110, 110, 110),
        Backend::Cpu => RGBColor(31, 119, 180),
        Backend::Wgpu => RGBColor(200, 90, 0),
        Backend::Cuda => RGBColor(44, 130, 44),
    }
}

/// The smallest and largest of them, a little widened.
fn range(values: impl Iterator<Item = f64> + Clone, margin: f64) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(0.0, f64::max);
    if low <= high { (low / margin, high * margin) } else { (0.1, 10.0) }
}

type DrawingError = DrawingAreaErrorKind<std::io::Error>;

fn draw(svg: &mut String, roofs: &[Roof], points: &[Point]) -> Result<(), DrawingError> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(SIZE.0 - KEY_WIDTH);
    let (x_low, x_high) = range(points.iter().map(|point| point.intensity), 4.0);
    let attainable = |roof: &Roof, intensity: f64| {
        let moving = roof.ceilings.bytes_per_second * intensity;
        roof.ceilings.flops_per_second.map_or(moving, |peak| moving.min(peak)) / 1e9
    };
    let ceilings = roofs.iter().map(|roof| attainable(roof, x_high));
    let (y_low, y_high) = range(points.iter().map(|point| point.gflops).chain(ceilings), 2.0);
    let mut chart = ChartBuilder::on(&left)
        .caption("Roofline, cold caches", ("sans-serif", 22))
        .margin(15)
        .x_label_area_size(50)
        .y_label_area_size(75)
        .build_cartesian_2d((x_low..x_high).log_scale(), (y_low..y_high).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("FLOP / byte")
        .y_desc("GFLOP/s")
        .label_style(("sans-serif", 14))
        .light_line_style(BLACK.mix(0.06))
        .draw()?;
    for roof in roofs {
        let ridge =
            roof.ceilings.flops_per_second.map(|peak| peak / roof.ceilings.bytes_per_second);
        let corners =
            [Some(x_low), ridge.filter(|ridge| (x_low..x_high).contains(ridge)), Some(x_high)];
        let line = corners.into_iter().flatten().map(|x| (x, attainable(roof, x)));
        chart.draw_series(LineSeries::new(line, colour(roof.backend).stroke_width(2)))?;
    }
    for (number, point) in (1..).zip(points) {
        let place = (point.intensity, point.gflops);
        let colour = colour(point.backend);
        chart.draw_series([Circle::new(place, 4, colour.filled())])?;
        let label = Text::new(format!("{number}"), (6, -6), ("sans-serif", 12).into_font());
        chart.draw_series([EmptyElement::at(place) + label])?;
    }
    draw_key(&right, roofs, points)?;
    area.present()
}

/// The list of ceilings and points beside the chart.
fn draw_key(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    roofs: &[Roof],
    points: &[Point],
) -> Result<(), DrawingError> {
    let mut y = 40;
    let mut line = |text: String, backend: Backend| {
        let style = ("sans-serif", 13).into_font().color(&colour(backend));
        let drawn = area.draw(&Text::new(text, (5, y), style));
        y += KEY_LINE;
        drawn
    };
    for roof in roofs {
        let bytes = roof.ceilings.bytes_per_second / 1e9;
        let peak = match roof.ceilings.flops_per_second {
            Some(flops) => format!("{:.0} GFLOP/s", flops / 1e9),
            None => "arithmetic not measured".to_owned(),
        };
        line(format!("{}: {bytes:.1} GB/s, {peak}", roof.backend), roof.backend)?;
    }
    for (number, point) in (1..).zip(points) {
        line(format!("{number}  {}", point.label), point.backend)?;
    }
    Ok(())
}
