use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{CpuSet, MAX_CPUS, ParseError};

fn set(cpus: &[u32]) -> CpuSet {
    cpus.iter().copied().collect()
}

#[test]
fn reads_what_kernels_print() {
    for (text, cpus) in [
        ("", vec![]),
        ("\n", vec![]),
        ("(null)\n", vec![]),
        ("0", vec![0]),
        ("0-3\n", vec![0, 1, 2, 3]),
        ("1,3-4,7", vec![1, 3, 4, 7]),
        ("0-7:2/4", vec![0, 1, 4, 5]),
        (" 2 , 4 ", vec![2, 4]),
        ("3,1,1-2", vec![1, 2, 3]),
    ] {
        assert_eq!(text.parse::<CpuSet>(), Ok(set(&cpus)), "{text:?}");
    }
}

#[test]
fn refuses_what_is_not_a_list_and_names_the_item() {
    for text in ["a", "1-", "-1", "1--2", "1,,2", "0x3", "+1", "1-2:3", "1:2"] {
        assert!(
            matches!(text.parse::<CpuSet>(), Err(ParseError::Malformed { .. })),
            "{text:?} gave {:?}",
            text.parse::<CpuSet>()
        );
    }
    assert!(matches!(
        "3-1".parse::<CpuSet>(),
        Err(ParseError::Backwards { .. })
    ));
    assert!(matches!(
        "0-7:0/4".parse::<CpuSet>(),
        Err(ParseError::BadGroup { .. })
    ));
    assert!(matches!(
        "0-7:5/4".parse::<CpuSet>(),
        Err(ParseError::BadGroup { .. })
    ));
    assert!(matches!(
        "0-4000000000".parse::<CpuSet>(),
        Err(ParseError::TooLarge { .. })
    ));
}

#[test]
fn masks_have_the_kernels_word_order() {
    assert_eq!(set(&[0]).to_mask(), "1");
    assert_eq!(set(&[]).to_mask(), "0");
    assert_eq!(set(&[0, 33]).to_mask(), "2,00000001");
    assert_eq!(
        CpuSet::from_mask("ff,00000001\n"),
        Ok(set(&[0, 32, 33, 34, 35, 36, 37, 38, 39]))
    );
}

fn members() -> impl Strategy<Value = BTreeSet<u32>> {
    // machines of up to 64 CPUs, and larger ones
    prop_oneof![
        prop::collection::btree_set(0..64_u32, 0..64),
        prop::collection::btree_set(0..300_u32, 0..64),
    ]
}

fn of(members: &BTreeSet<u32>) -> CpuSet {
    members.iter().copied().collect()
}

proptest! {
    #[test]
    fn it_does_what_a_set_of_numbers_does(a in members(), b in members(), cpu in 0..400_u32) {
        let (x, y) = (of(&a), of(&b));
        prop_assert_eq!(x.union(&y), of(&(&a | &b)));
        prop_assert_eq!(x.intersection(&y), of(&(&a & &b)));
        prop_assert_eq!(x.difference(&y), of(&(&a - &b)));
        prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
        prop_assert_eq!(x.is_disjoint(&y), a.is_disjoint(&b));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        prop_assert_eq!(x == y, a == b);
        prop_assert_eq!(x.contains(cpu), a.contains(&cpu));
        prop_assert_eq!((x.len(), x.is_empty()), (a.len(), a.is_empty()));
        prop_assert_eq!(x.first(), a.first().copied());
        prop_assert!(x.iter().eq(a.iter().copied()));
        prop_assert!(x.iter().rev().eq(a.iter().rev().copied()));
    }

    #[test]
    fn what_is_printed_is_read_back(cpus in prop::collection::btree_set(0..MAX_CPUS, 0..64)) {
        let set: CpuSet = cpus.into_iter().collect();
        prop_assert_eq!(&set.to_string().parse::<CpuSet>().unwrap(), &set);
        prop_assert_eq!(&CpuSet::from_mask(&set.to_mask()).unwrap(), &set);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}") {
        drop(text.parse::<CpuSet>());
        drop(CpuSet::from_mask(&text));
    }
}
