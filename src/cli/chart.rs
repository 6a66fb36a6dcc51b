//! Draws a benchmark's figures as SVG: for each project a bar for each way, on a logarithmic axis.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 90.0;
const BAR: f64 = 16.0;
const GAP: f64 = 18.0;
const COLOURS: [&str; 6] = ["#c3cad2", "#9aa5b1", "#5b8def", "#8fd0ae", "#2fa36b", "#1d6b46"];

/// One group of bars: a label, and a value for each series.
pub type Group = (String, Vec<f64>);

/// A bar chart of positive values, as an SVG document.
#[must_use]
pub fn bars(title: &str, unit: &str, series: &[&str], groups: &[Group]) -> String {
    let values = || groups.iter().flat_map(|(_, values)| values).copied().filter(|value| *value > 0.0);
    let least = values().fold(f64::INFINITY, f64::min).log10().floor();
    let most = values().fold(0.0, f64::max).log10().ceil().max(least + 1.0);
    let length = |value: f64| (value.log10() - least).max(0.0) / (most - least) * (WIDTH - LEFT - 110.0);
    let group_height = BAR * series_count(series) + GAP;
    let top = 50.0 + 18.0 * series_count(series);
    let height = top + group_height * count(groups.len()) + 10.0;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    for (index, name) in series.iter().enumerate() {
        let (y, colour) = (48.0 + 18.0 * count(index), COLOURS[index % COLOURS.len()]);
        let _ = writeln!(svg, "<rect x=\"10\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>", y - 10.0);
        let _ = writeln!(svg, "<text x=\"28\" y=\"{y}\">{}</text>", escaped(name));
    }
    for (row, (label, values)) in groups.iter().enumerate() {
        let y = top + group_height * count(row);
        let _ = writeln!(svg, "<text x=\"10\" y=\"{}\">{}</text>", y + BAR, escaped(label));
        for (index, value) in values.iter().enumerate() {
            let (y, width, colour) = (y + BAR * count(index), length(*value), COLOURS[index % COLOURS.len()]);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                BAR - 2.0
            );
            let x = LEFT + width + 6.0;
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\">{value:.3} {}</text>", y + BAR - 4.0, escaped(unit));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn series_count(series: &[&str]) -> f64 {
    count(series.len())
}

/// Far below what a double holds exactly.
fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_values_have_longer_bars() {
        let groups = [("10 & more".to_owned(), vec![0.01, 0.1]), ("all".to_owned(), vec![1.0, 10.0])];
        let svg = bars("a < b", "s", &["one", "two"], &groups);
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("x=\"90\""))
            .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(widths.len(), 4);
        assert!(widths.is_sorted() && widths[3] > widths[0], "{widths:?}");
        assert!(svg.contains("a &lt; b") && svg.contains("10 &amp; more"));
    }
}
