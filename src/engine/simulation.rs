//! Random runs under a pretended executor: whatever fails, no step runs before its needs, a run ends
//! once, and a run that is cut off anywhere comes to the same end.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::decide::{Command, Situation, decide};
use super::graph::Graph;
use super::state::{ChangeState, Phase, RunState};
use crate::journal::event::{ApprovalRequest, Decision, Event, Item, Outcome, Principal, Rows};
use crate::kernel::{
    Change, ChangeSet, Digest, Direction, Failure, Inverse, Operation, Receipt, Recovery, Risk,
    Settlement, Span, Target, Timestamp,
};
use crate::plan::PlanBody;
use crate::plan::document::{
    Action, ApprovalMode, Embedded, ForEach, Limits, Need, OnVerifyFail, PlannedStep, Retry, RunIf,
    ToolCall, Verify,
};

/// What a generated step is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Read,
    Write,
    FanOut,
    Verify,
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent traits of a generated step")]
struct Shape {
    kind: Kind,
    needs: Vec<usize>,
    conditional: bool,
    allow_failure: bool,
    always: bool,
    asks: bool,
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let shape = (
        prop_oneof![
            4 => Just(Kind::Read),
            3 => Just(Kind::Write),
            2 => Just(Kind::FanOut),
            1 => Just(Kind::Verify)
        ],
        proptest::collection::vec(any::<prop::sample::Index>(), 0..3),
        proptest::bool::weighted(0.2),
        proptest::bool::weighted(0.2),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.3),
    );
    proptest::collection::vec(shape, 1..14).prop_map(|raw| {
        let shape = |(place, raw): (usize, _)| {
            let (kind, needs, conditional, allow_failure, always, asks): (
                _,
                Vec<prop::sample::Index>,
                _,
                _,
                _,
                _,
            ) = raw;
            let mut needs: Vec<usize> = if place == 0 {
                Vec::new()
            } else {
                needs.iter().map(|n| n.index(place)).collect()
            };
            needs.sort_unstable();
            needs.dedup();
            Shape { kind, needs, conditional, allow_failure, always, asks }
        };
        raw.into_iter().enumerate().map(shape).collect()
    })
}

fn call(tool: &str) -> ToolCall {
    ToolCall { tool: tool.to_owned(), with: Value::Null }
}

fn step(place: usize, shape: &Shape) -> PlannedStep {
    let action = match shape.kind {
        Kind::Read => Action::Tool(call("read")),
        Kind::Write | Kind::FanOut => Action::Tool(call("write")),
        Kind::Verify => Action::Verify(Verify {
            call: call("read"),
            assert: Vec::new(),
            every: Span::from_secs(1),
            within: Span::from_secs(5),
            on_fail: OnVerifyFail::Compensate,
        }),
    };
    let for_each = matches!(shape.kind, Kind::FanOut).then(|| ForEach {
        items: json!([]),
        key: "${{ item }}".to_owned(),
        max_parallel: 2,
        fail_fast: true,
    });
    PlannedStep {
        id: format!("s{place}"),
        needs: shape
            .needs
            .iter()
            .map(|n| Need { step: format!("s{n}"), inferred: false })
            .collect(),
        when: shape.conditional.then(|| "true".to_owned()),
        run_if: if shape.always { RunIf::Always } else { RunIf::Success },
        for_each,
        target: None,
        action,
        approval: ApprovalMode::Auto,
        risk: Risk::Low,
        timeout: Span::from_secs(60),
        retry: Retry::default(),
        allow_failure: shape.allow_failure,
        lock: None,
        wake: false,
        compensate: None,
    }
}

fn body(shapes: &[Shape]) -> PlanBody {
    let handler = |id: &str| PlannedStep { id: id.to_owned(), ..step(0, &shapes[0].clone()) };
    let plain = |id: &str| PlannedStep {
        needs: Vec::new(),
        when: None,
        for_each: None,
        action: Action::Tool(call("read")),
        ..handler(id)
    };
    PlanBody {
        workflow: "w".to_owned(),
        description: String::new(),
        workflow_digest: Digest::of_bytes(b""),
        params: serde_json::Map::new(),
        target: Target::default(),
        connection: "local".to_owned(),
        lock: None,
        limits: Limits::default(),
        steps: shapes.iter().enumerate().map(|(place, shape)| step(place, shape)).collect(),
        on_failure: vec![plain("on_failure_1")],
        always: vec![plain("always_1")],
        outputs: BTreeMap::new(),
        scripts: BTreeMap::new(),
        sql: BTreeMap::new(),
        tools: BTreeMap::new(),
        policy: None,
        secrets: Vec::new(),
        preconditions: Vec::new(),
        replaces: None,
        schedule: Value::Null,
        triggers: Value::Null,
    }
}

/// A pretended outside: every outcome follows from the seed and the key alone, so that a run that was
/// cut off meets the same world.
struct World {
    seed: u64,
    failing: u64,
    shapes: Vec<Shape>,
    now: i64,
    applied: BTreeMap<String, u32>,
    undone: BTreeMap<String, u32>,
}

impl World {
    fn roll(&self, key: &str, what: &str) -> u64 {
        let digest = Digest::of_bytes(format!("{}/{key}/{what}", self.seed).as_bytes());
        u64::from_str_radix(&digest.as_str()[..8], 16).unwrap() % 100
    }

    fn fails(&self, key: &str, what: &str) -> bool {
        self.roll(key, what) < self.failing
    }
}

fn nobody() -> Principal {
    Principal { name: "t".to_owned(), from: "test".to_owned() }
}

fn failed(state: &RunState, id: usize, retry_at: Option<Timestamp>) -> Event {
    Event::AttemptFailed {
        step: state.nodes[id].key.clone(),
        attempt: state.nodes[id].attempts.max(1),
        failure: Failure::permanent("test::failed", "as the seed says"),
        retry_at,
    }
}

fn succeeded(key: &str) -> Event {
    Event::StepSucceeded {
        step: key.to_owned(),
        output: json!(key).into(),
        history: Rows::default(),
        seen: Vec::new(),
        fact: None,
    }
}

fn proposal(world: &World, key: &str) -> (ChangeSet, Vec<String>) {
    let count = world.roll(key, "changes") % 4;
    let change = |index| {
        let mut change =
            Change::new(key, "test", Operation::sql(format!("{key} {index}"), Vec::new()));
        change.recovery = Recovery::Transactional;
        let operation = Operation::sql("undo", Vec::new());
        change.inverse = Inverse::By { operation, recovery: Recovery::Transactional };
        change
    };
    let place: usize = key[1..].split('[').next().unwrap().parse().unwrap_or(0);
    let asks = world.shapes.get(place).is_some_and(|shape| shape.asks);
    (
        ChangeSet::new((0..count).map(change).collect()),
        if asks { vec!["x".into()] } else { Vec::new() },
    )
}

/// What performing a command yields. Long work is cut into one event a call, so that a run can be cut
/// off anywhere inside it.
fn perform(world: &mut World, state: &RunState, command: &Command) -> Vec<Event> {
    let now = Timestamp::from_millis(world.now);
    let key = |id: usize| state.nodes[id].key.clone();
    match command {
        Command::Condition(id) => {
            let result = world.roll(&key(*id), "when") < 60;
            let mut events =
                vec![Event::ConditionEvaluated { step: key(*id), result, seen: Vec::new() }];
            if !result {
                let reason = crate::journal::event::SkipReason::Condition;
                events.push(Event::StepSkipped { step: key(*id), reason });
            }
            events
        }
        Command::Skip(id, reason) => {
            vec![Event::StepSkipped { step: key(*id), reason: reason.clone() }]
        }
        Command::Items(id) => {
            let count = world.roll(&key(*id), "items") % 5;
            let item = |n| Item { key: format!("i{n}"), value: json!(n) };
            vec![Event::ItemsListed { step: key(*id), items: (0..count).map(item).collect() }]
        }
        Command::Collect(id) => {
            let items = state.nodes[*id].item_nodes();
            let all = items.iter().all(|&item| state.nodes[item].phase == Phase::Succeeded);
            vec![if all { succeeded(&key(*id)) } else { failed(state, *id, None) }]
        }
        Command::Attempt(id) => {
            let attempt = state.nodes[*id].attempts + 1;
            let begun = Event::AttemptStarted { step: key(*id), attempt, arguments: Value::Null };
            if state.nodes[*id].phase != Phase::Running {
                return vec![begun];
            }
            if !world.fails(&key(*id), "read") {
                return vec![succeeded(&key(*id))];
            }
            let again = (state.nodes[*id].attempts < 2).then_some(now);
            vec![failed(state, *id, again)]
        }
        Command::Propose(id) => {
            let (set, ask) = proposal(world, &key(*id));
            let (arguments, policy, server) = (Value::Null, Value::Null, Value::Null);
            vec![Event::ChangesProposed { step: key(*id), arguments, set, policy, ask, server }]
        }
        Command::Request { node, covers, direction } => {
            let keys: Vec<String> = covers.iter().map(|&id| key(id)).collect();
            let request = ApprovalRequest {
                digest: Digest::of_value(&json!(keys)),
                prompt: String::new(),
                covers: keys,
                risk: Risk::Low,
                reasons: Vec::new(),
                expires_at: now.plus(std::time::Duration::from_mins(1)),
                show: Value::Null,
                rehearsed_within: None,
                direction: *direction,
            };
            vec![Event::ApprovalRequested { step: key(*node), request }]
        }
        Command::Apply(id) | Command::Drain(id) => {
            let drain = matches!(command, Command::Drain(_));
            apply(world, state, *id, drain)
        }
        Command::Abandon(id) => {
            let node = &state.nodes[*id];
            let applied = node.work.as_deref().is_some_and(super::state::Work::has_applied);
            if node.attempts == 0 && !applied {
                let reason = crate::journal::event::SkipReason::RunEnding;
                return vec![Event::StepSkipped { step: key(*id), reason }];
            }
            vec![failed(state, *id, None)]
        }
        Command::StartWait(id) => {
            let deadline = now.plus(std::time::Duration::from_secs(2));
            vec![Event::WaitStarted { step: key(*id), deadline }]
        }
        Command::Poll(id) => {
            let passed = !world.fails(&key(*id), "verify");
            vec![if passed { succeeded(&key(*id)) } else { failed(state, *id, None) }]
        }
        Command::Fail(id, _) => vec![failed(state, *id, None)],
        Command::BeginEnding { outcome, compensate, scope, failure } => vec![Event::EndingBegan {
            outcome: *outcome,
            compensate: *compensate,
            scope: scope.clone(),
            failure: failure.clone(),
        }],
        Command::ProposeUndo(id) => vec![propose_undo(state, *id)],
        Command::Undo(id) => undo(world, state, *id),
        Command::Finish { outcome, compensation } => vec![Event::RunFinished {
            outcome: *outcome,
            compensation: *compensation,
            outputs: Value::Null,
        }],
        other => panic!("no such command was expected: {other:?}"),
    }
}

fn apply(world: &mut World, state: &RunState, id: usize, drain: bool) -> Vec<Event> {
    let node = &state.nodes[id];
    let step = node.key.clone();
    let work = node.work.as_ref().unwrap();
    if node.phase != Phase::Running && !drain {
        let attempt = node.attempts + 1;
        return vec![Event::AttemptStarted { step, attempt, arguments: Value::Null }];
    }
    let Some(open) = work.first_open() else { return vec![succeeded(&step)] };
    let index = u32::try_from(open).unwrap();
    let (set, direction) = (work.set.digest.clone(), Direction::Do);
    match &work.changes[open] {
        ChangeState::New => {
            vec![Event::ChangeStarted { step, set, index, direction, fingerprint: Value::Null }]
        }
        ChangeState::Started { note: None, .. } if world.roll(&step, "note") < 30 => {
            vec![Event::ChangeNoted { step, index, direction, note: "operations/1".to_owned() }]
        }
        ChangeState::Started { .. } => {
            let tries = world.applied.entry(format!("{step}/{index}")).or_default();
            *tries += 1;
            let settlement = Settlement::Applied { receipt: Receipt::default() };
            vec![Event::ChangeSettled { step, index, direction, settlement }]
        }
        other => panic!("change {index} of {step} is {other:?}"),
    }
}

fn propose_undo(state: &RunState, id: usize) -> Event {
    let node = &state.nodes[id];
    let (set, impossible) = super::carrying::inverses(node.work.as_ref().unwrap());
    Event::CompensationProposed {
        step: node.key.clone(),
        set,
        impossible,
        policy: Value::Null,
        ask: Vec::new(),
        server: Value::Null,
    }
}

fn undo(world: &mut World, state: &RunState, id: usize) -> Vec<Event> {
    let node = &state.nodes[id];
    let step = node.key.clone();
    let undo = node.undo.as_ref().unwrap();
    let Some(open) = undo.work.first_open() else {
        return vec![Event::StepCompensated { step, left: Vec::new() }];
    };
    let index = u32::try_from(open).unwrap();
    let (set, direction) = (undo.work.set.digest.clone(), Direction::Undo);
    if undo.work.changes[open] == ChangeState::New {
        return vec![Event::ChangeStarted {
            step,
            set,
            index,
            direction,
            fingerprint: Value::Null,
        }];
    }
    *world.undone.entry(format!("{step}/{index}")).or_default() += 1;
    let settlement = Settlement::Applied { receipt: Receipt::default() };
    vec![Event::ChangeSettled { step, index, direction, settlement }]
}

fn fresh(shapes: &[Shape]) -> RunState {
    let graph = Graph::of(&body(shapes), &|tool| tool == "write").unwrap();
    RunState::new(Arc::new(graph), &json!({}).into(), &Target::default())
}

fn next(world: &mut World, state: &RunState) -> Vec<Event> {
    let in_flight = HashSet::new();
    let situation = Situation {
        now: Timestamp::from_millis(world.now),
        in_flight: &in_flight,
        lock: None,
        timeout: None,
        max_changes: Some(1_000),
        max_barren: 1_000_000,
    };
    let next = decide(state, &situation);
    if let Some(command) = next.commands.first() {
        return perform(world, state, command);
    }
    if let Some(open) = state.approvals.iter().find(|approval| approval.decided.is_none()) {
        let rejects = world.fails(&open.step, "approval");
        return vec![Event::ApprovalDecided {
            step: open.step.clone(),
            digest: open.request.digest.clone(),
            decision: if rejects { Decision::Rejected } else { Decision::Approved },
            by: nobody(),
            reason: String::new(),
        }];
    }
    panic!("nothing to do and nothing waited for: {next:?}");
}

/// Checks that a step which begins has all it needs.
fn check_order(shapes: &[Shape], state: &RunState, event: &Event) {
    let begins = matches!(
        event,
        Event::AttemptStarted { .. } | Event::ChangesProposed { .. } | Event::ItemsListed { .. }
    );
    let Some(key) = event.step().filter(|key| begins && key.starts_with('s')) else { return };
    let place: usize = key[1..].split('[').next().unwrap().parse().unwrap();
    for need in &shapes[place].needs {
        let needed = &state.nodes[state.find(&format!("s{need}")).unwrap()];
        assert!(needed.phase.is_terminal(), "{key} began before s{need} had ended");
        if !shapes[place].always && needed.phase == Phase::Failed {
            assert!(shapes[*need].allow_failure, "{key} began although s{need} had failed");
        }
    }
}

/// Runs to the end, or until `events` has `most`.
fn run(world: &mut World, state: &mut RunState, events: &mut Vec<Event>, most: usize) {
    while state.finished.is_none() && events.len() < most {
        for event in next(world, state) {
            check_order(&world.shapes, state, &event);
            world.now += 10;
            let seq = u64::try_from(events.len() + 1).unwrap();
            state.apply(&event, Timestamp::from_millis(world.now), seq).unwrap();
            check_frozen(state);
            events.push(event);
        }
        assert!(events.len() < 5_000, "the run does not end");
    }
}

/// Checks that what is kept about frozen sets is what the sets say.
fn check_frozen(state: &RunState) {
    let is_frozen = |node: &super::state::Node| {
        !node.phase.is_terminal() && node.work.as_deref().is_some_and(super::state::Work::is_frozen)
    };
    let nodes = state.nodes.iter().enumerate();
    let frozen: Vec<usize> = nodes.filter(|(_, node)| is_frozen(node)).map(|(id, _)| id).collect();
    assert!(frozen.iter().eq(&state.frozen), "{frozen:?} and {:?}", state.frozen);
}

fn world(shapes: &[Shape], seed: u64, failing: u64) -> World {
    let (applied, undone) = (BTreeMap::new(), BTreeMap::new());
    World { seed, failing, shapes: shapes.to_vec(), now: 0, applied, undone }
}

fn ends(state: &RunState) -> BTreeMap<String, &'static str> {
    state.nodes.iter().map(|node| (node.key.clone(), node.phase.as_str())).collect()
}

fn check_end(state: &RunState, world: &World, events: &[Event]) {
    let finishes = events.iter().filter(|event| matches!(event, Event::RunFinished { .. })).count();
    assert_eq!(finishes, 1);
    let (outcome, _) = state.finished.unwrap();
    for node in state.nodes.iter().filter(|node| node.key.starts_with('s')) {
        assert!(node.phase.is_terminal(), "{} has not ended", node.key);
        let fatal = node.phase == Phase::Failed
            && node.fan_out.is_none()
            && !state.def(state.find(&node.key).unwrap()).step.allow_failure;
        assert!(!fatal || outcome == Outcome::Failed, "{} failed in a {outcome:?} run", node.key);
    }
    assert!(world.applied.values().all(|times| *times == 1), "{:?}", world.applied);
    assert!(world.undone.values().all(|times| *times == 1), "{:?}", world.undone);
    assert!(world.undone.len() <= world.applied.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_runs_keep_their_order_and_end_once(
        shapes in shapes(), seed in any::<u64>(), failing in 0..40_u64,
    ) {
        let mut world = world(&shapes, seed, failing);
        let (mut state, mut events) = (fresh(&shapes), Vec::new());
        run(&mut world, &mut state, &mut events, usize::MAX);
        check_end(&state, &world, &events);
    }

    #[test]
    fn a_run_that_is_cut_off_anywhere_comes_to_the_same_end(
        shapes in shapes(), seed in any::<u64>(), failing in 0..30_u64,
    ) {
        let mut whole = world(&shapes, seed, failing);
        let (mut state, mut events) = (fresh(&shapes), Vec::new());
        run(&mut whole, &mut state, &mut events, usize::MAX);
        for cut in 0..events.len() {
            let mut world = world(&shapes, seed, failing);
            let mut resumed = fresh(&shapes);
            for (place, event) in events[..cut].iter().enumerate() {
                world.now += 10;
                let seq = u64::try_from(place + 1).unwrap();
                resumed.apply(event, Timestamp::from_millis(world.now), seq).unwrap();
                if let Event::ChangeSettled { step, index, direction, .. } = event {
                    let known = match direction {
                        Direction::Do => &mut world.applied,
                        Direction::Undo => &mut world.undone,
                    };
                    *known.entry(format!("{step}/{index}")).or_default() += 1;
                }
            }
            if resumed.finished.is_some() {
                continue;
            }
            let mut further = events[..cut].to_vec();
            let claim = Event::RunClaimed { by: nobody(), pid: 1 };
            resumed.apply(&claim, Timestamp::from_millis(world.now), 0).unwrap();
            further.push(claim);
            run(&mut world, &mut resumed, &mut further, usize::MAX);
            check_end(&resumed, &world, &further);
            prop_assert_eq!(resumed.finished, state.finished);
            if failing == 0 {
                prop_assert_eq!(ends(&resumed), ends(&state));
            }
        }
    }
}

#[test]
fn a_workflow_is_embedded_once() {
    let shapes = [Shape {
        kind: Kind::Read,
        needs: Vec::new(),
        conditional: false,
        allow_failure: false,
        always: false,
        asks: false,
    }];
    let mut body = body(&shapes);
    body.steps[0].action = Action::Workflow(Box::new(Embedded {
        workflow: "child".to_owned(),
        digest: Digest::of_bytes(b""),
        params: Value::Null,
        target: None,
        lock: None,
        steps: vec![step(0, &shapes[0])],
        on_failure: Vec::new(),
        always: Vec::new(),
        outputs: BTreeMap::new(),
    }));
    let graph = Graph::of(&body, &|_| false).unwrap();
    let mut state = RunState::new(Arc::new(graph), &json!({}).into(), &Target::default());
    let step = "s0".to_owned();
    let opened = Event::ScopeOpened { step, params: json!({}), target: Target::default() };
    let at = Timestamp::from_millis(0);
    state.apply(&opened, at, 1).unwrap();
    let nodes = state.nodes.len();
    let refused = state.apply(&opened, at, 2).unwrap_err();
    assert_eq!((refused.event, state.nodes.len()), ("scope_opened", nodes));
}
