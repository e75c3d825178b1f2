//! `certificate.*`: what noise certificates show, of containers that the stock docker client
//! started. Counts rather than times: under emulation only those mean something (quiet.md §9).

mod bed;
mod boots;
mod calibration;
mod controls;
mod cost;
mod sensitivity;
mod silence;
mod threads;

use testkit::ConfigOptions;

use super::figure::Figure;
use super::sides::{Sides, background_busy};
use bed::Bed;

/// Whether a figure is asked for.
pub type Wanted<'a> = dyn Fn(&str) -> bool + 'a;

/// All ids.
#[must_use]
pub fn ids() -> Vec<&'static str> {
    let single = [
        threads::ID,
        sensitivity::ID,
        controls::ID,
        boots::ID,
        calibration::ID,
    ];
    let several = silence::IDS.into_iter().chain(cost::IDS);
    several.chain(single).collect()
}

/// Those that are wanted. One that cannot be taken is a figure that is not met and says why: they
/// take minutes each, and the others are still worth having.
///
/// # Errors
/// When the node that most of them share does not come up.
pub fn all(sides: &Sides, wanted: &Wanted<'_>) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let shared = |id: &&str| wanted(id) && ![boots::ID, calibration::ID].contains(id);
    if ids().iter().any(shared) {
        let busy = background_busy()?;
        let bed = Bed::boot(sides, &sides.ours(3, &ConfigOptions::default())?)?;
        on_one_node(sides, &bed, wanted, busy, &mut figures)?;
    }
    let mut take = |id: &'static str, measure: &dyn Fn() -> anyhow::Result<Figure>| {
        if wanted(id) {
            figures.push(measure().unwrap_or_else(|error| missed(id, &error)));
        }
    };
    take(boots::ID, &|| boots::measure(sides));
    take(calibration::ID, &|| calibration::measure(sides));
    Ok(figures)
}

fn on_one_node(
    sides: &Sides,
    bed: &Bed,
    wanted: &Wanted<'_>,
    busy: f64,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    let mut quiet = None;
    if silence::IDS.iter().any(|id| wanted(id)) || wanted(controls::ID) {
        match silence::figures(bed, wanted, busy) {
            Ok((measured, certificate)) => {
                figures.extend(measured);
                quiet = Some(certificate);
            }
            Err(error) => figures.extend(all_missed(&silence::IDS, wanted, &error)),
        }
    }
    bed.give_hand()?;
    if wanted(sensitivity::ID) {
        let measured = sensitivity::measure(bed, busy);
        figures.push(measured.unwrap_or_else(|error| missed(sensitivity::ID, &error)));
    }
    if wanted(threads::ID) {
        let measured = threads::measure(bed, busy);
        figures.push(measured.unwrap_or_else(|error| missed(threads::ID, &error)));
    }
    if cost::IDS.iter().any(|id| wanted(id)) {
        match cost::figures(bed, wanted, busy) {
            Ok(measured) => figures.extend(measured),
            Err(error) => figures.extend(all_missed(&cost::IDS, wanted, &error)),
        }
    }
    if wanted(controls::ID) {
        let measured = match &quiet {
            Some(quiet) => controls::measure(sides, bed, quiet, busy),
            None => Err(anyhow::anyhow!("there is no quiet certificate to change")),
        };
        figures.push(measured.unwrap_or_else(|error| missed(controls::ID, &error)));
    }
    Ok(())
}

/// `quiet.loc` counts the same on the other side: a minute of a spin there.
pub fn add_baseline(figures: &mut [Figure]) {
    let theirs = figures
        .iter()
        .find(|figure| figure.id == "quiet.loc")
        .and_then(|figure| figure.theirs);
    let ours = figures
        .iter_mut()
        .find(|figure| figure.id == "certificate.canary_loc");
    if let (Some(theirs), Some(figure)) = (theirs, ours)
        && let Some(ours) = figure.ours
    {
        let ratio = theirs / ours.max(1.0);
        figure.theirs = Some(theirs);
        figure.ratio = Some(ratio);
        figure.target.push_str(" and theirs/ours ≥ 1000");
        figure.met &= ratio >= 1000.0;
        figure
            .note
            .push_str("; theirs is that of quiet.loc, the ratio theirs/ours (of at least 1)");
    }
}

fn missed(id: &str, error: &anyhow::Error) -> Figure {
    eprintln!("bench: {id} could not be taken: {error:#}");
    figure(id, "could not be taken", "", "", 0.0).note(format!("{error:#}"))
}

fn all_missed(ids: &[&str], wanted: &Wanted<'_>, error: &anyhow::Error) -> Vec<Figure> {
    let wanted = ids.iter().filter(|id| wanted(id));
    wanted.map(|id| missed(id, error)).collect()
}

fn figure(id: &str, what: &str, unit: &str, target: &str, busy: f64) -> Figure {
    Figure::new(id, what, unit, target, busy)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
