use proptest::prelude::*;

use super::*;

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

fn token(name: &str) -> Token {
    Token(name.into())
}

fn container(name: &str) -> Holder {
    Holder::Container {
        id: Some(format!("{name}0123456789abcdef")),
        name: Some(name.into()),
    }
}

fn two_nodes() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.set_pool(Pool {
        isolated: cpus("1-3,4-7"),
        boot_isolated: CpuSet::new(),
        nodes: BTreeMap::from([(0, cpus("0-3")), (1, cpus("4-7"))]),
    });
    ledger
}

const NOW: Duration = Duration::from_secs(1000);

#[test]
fn a_second_claim_on_a_cpu_names_the_holder_and_the_free_ones() {
    let mut ledger = two_nodes();
    ledger
        .open(
            token("a"),
            Wish::Exact(cpus("1")),
            None,
            container("first"),
            NOW,
        )
        .unwrap();
    let refusal = ledger
        .open(
            token("b"),
            Wish::Exact(cpus("1-2")),
            None,
            container("second"),
            NOW,
        )
        .unwrap_err();
    let text = refusal.to_string();
    assert!(
        text.contains("CPU 1 is held by container first (first0123456)"),
        "{text}"
    );
    assert!(text.contains("(2-7)"), "{text}");
    assert_eq!(
        ledger.claims().len(),
        1,
        "a refused claim leaves nothing behind"
    );
}

#[test]
fn a_count_stays_on_one_node_and_brings_its_memory() {
    let mut ledger = two_nodes();
    let claim = ledger
        .open(token("a"), Wish::Count(3), None, container("a"), NOW)
        .unwrap();
    assert_eq!(
        (claim.cpus.clone(), claim.mems.clone()),
        (cpus("1-3"), cpus("0"))
    );
    let claim = ledger
        .open(token("b"), Wish::Count(4), None, container("b"), NOW)
        .unwrap();
    assert_eq!(
        (claim.cpus.clone(), claim.mems.clone()),
        (cpus("4-7"), cpus("1"))
    );
    let refusal = ledger
        .open(token("c"), Wish::Count(1), None, container("c"), NOW)
        .unwrap_err();
    assert!(
        matches!(
            refusal,
            Refusal::TooFew {
                asked: 1,
                free_count: 0,
                ..
            }
        ),
        "{refusal}"
    );
}

#[test]
fn asked_memory_nodes_win_but_must_exist() {
    let mut ledger = two_nodes();
    let far = Some(cpus("1"));
    let claim = ledger
        .open(token("a"), Wish::Exact(cpus("1")), far, container("a"), NOW)
        .unwrap();
    assert_eq!(claim.mems, cpus("1"));
    let refusal = ledger
        .open(
            token("b"),
            Wish::Exact(cpus("2")),
            Some(cpus("7")),
            container("b"),
            NOW,
        )
        .unwrap_err();
    assert!(matches!(refusal, Refusal::NoSuchNode { .. }));
}

#[test]
fn a_stopped_container_frees_its_cpu_and_takes_it_again_when_it_starts() {
    let mut ledger = two_nodes();
    ledger
        .open(
            token("a"),
            Wish::Exact(cpus("1")),
            None,
            container("a"),
            NOW,
        )
        .unwrap();
    ledger.set_hold(&token("a"), Hold::Stopped);
    ledger
        .open(
            token("b"),
            Wish::Exact(cpus("1")),
            None,
            container("b"),
            NOW,
        )
        .unwrap();
    assert!(matches!(
        ledger.take(&token("a"), NOW),
        Err(Refusal::Taken { .. })
    ));
    ledger.close(&token("b"));
    ledger.take(&token("a"), NOW).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Open(u8, Option<u8>, u32),
    Take(u8),
    Run(u8),
    Stop(u8),
    Close(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6_u8, prop::option::of(1..8_u8), 1..4_u32).prop_map(|(t, c, n)| Step::Open(t, c, n)),
        (0..6_u8).prop_map(Step::Take),
        (0..6_u8).prop_map(Step::Run),
        (0..6_u8).prop_map(Step::Stop),
        (0..6_u8).prop_map(Step::Close),
        (0..200_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Over any history, no CPU is held twice and only isolated CPUs are held.
    #[test]
    fn no_cpu_is_ever_held_twice(steps in prop::collection::vec(step(), 0..60)) {
        let mut ledger = two_nodes();
        let mut now = NOW;
        for step in steps {
            let name = |t: u8| token(&t.to_string());
            match step {
                Step::Open(t, cpu, count) if !ledger.claims().contains_key(&name(t)) => {
                    let wish = cpu.map_or(Wish::Count(count), |cpu| {
                        Wish::Exact([u32::from(cpu)].into_iter().collect())
                    });
                    let _refused = ledger.open(name(t), wish, None, container("x"), now).is_err();
                }
                Step::Open(..) => {}
                Step::Take(t) => {
                    let _refused = ledger.take(&name(t), now).is_err();
                }
                // the agent says so only of a claim that was taken for the start
                Step::Run(t) => if ledger.claims().get(&name(t)).is_some_and(|c| c.holds()) {
                    ledger.set_hold(&name(t), Hold::Running);
                },
                Step::Stop(t) => ledger.set_hold(&name(t), Hold::Stopped),
                Step::Close(t) => { ledger.close(&name(t)); }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            let mut seen = CpuSet::new();
            for claim in ledger.claims().values().filter(|claim| claim.holds()) {
                prop_assert!(claim.cpus.is_disjoint(&seen), "{:?}", ledger.claims());
                prop_assert!(claim.cpus.is_subset(&cpus("1-7")));
                prop_assert!(!claim.cpus.is_empty());
                seen = seen.union(&claim.cpus);
            }
        }
    }
}

#[test]
fn several_cpus_are_chosen_where_threads_spread() {
    let mut ledger = Ledger::default();
    ledger.set_pool(Pool {
        isolated: cpus("1-4"),
        boot_isolated: cpus("1-2"),
        nodes: BTreeMap::from([(0, cpus("0-4"))]),
    });
    let mut open = |name: &str, wish| {
        let claim = ledger.open(token(name), wish, None, container(name), NOW);
        claim.map(|claim| claim.cpus.clone())
    };
    assert_eq!(open("a", Wish::Count(2)), Ok(cpus("3-4")));
    assert_eq!(open("b", Wish::Count(1)), Ok(cpus("1")));
    let refusal = open("c", Wish::Count(3)).unwrap_err();
    assert_eq!(refusal, Refusal::NotSpread { cpus: cpus("1-2") });
    assert!(matches!(
        open("d", Wish::Count(2)),
        Err(Refusal::TooFew { free_count: 0, .. })
    ));
}
