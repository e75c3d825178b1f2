//! Bipartite matching: who gets what, if each will do with some of it only.

/// Gives each place one of its candidates, no candidate twice; earlier candidates of a place are
/// tried first. `None`: there is no way (augmenting paths; Kuhn, 1955, 10.1002/nav.3800020109).
pub(crate) fn matching(places: &[&[usize]], things: usize) -> Option<Vec<usize>> {
    let mut holder: Vec<Option<usize>> = vec![None; things];
    for place in 0..places.len() {
        let mut seen = vec![false; things];
        if !augment(place, places, &mut holder, &mut seen) {
            return None;
        }
    }
    let mut given = vec![0; places.len()];
    for (thing, place) in holder.iter().enumerate() {
        if let Some(place) = place {
            given[*place] = thing;
        }
    }
    Some(given)
}

fn augment(
    place: usize,
    places: &[&[usize]],
    holder: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    // the free ones first: most places need no path at all
    let free = places[place].iter().find(|thing| holder[**thing].is_none());
    if let Some(thing) = free {
        holder[*thing] = Some(place);
        return true;
    }
    for &thing in places[place] {
        if seen[thing] {
            continue;
        }
        seen[thing] = true;
        let moved = holder[thing].is_none_or(|other| augment(other, places, holder, seen));
        if moved {
            holder[thing] = Some(place);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::matching;

    #[test]
    fn who_is_choosy_gets_what_it_needs() {
        assert_eq!(matching(&[&[0, 1], &[0]], 2), Some(vec![1, 0]));
        assert_eq!(matching(&[&[0, 1], &[0, 2], &[0]], 3), Some(vec![1, 2, 0]));
        assert_eq!(matching(&[&[0], &[0]], 2), None);
        assert_eq!(matching(&[], 0), Some(vec![]));
    }
}
