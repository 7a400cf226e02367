//! What keeping a new index costs whoever writes, from an experiment on a branch. PURE.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::number::rounded;
use super::trial::{Execution, WriteTrial, median};

/// What keeping an index costs whoever writes: the same rows written with and without it, in a transaction
/// that was rolled back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WriteCost {
    /// How many rows were deleted and inserted again.
    pub rows: f64,
    /// How long that took without the index: the median, in milliseconds.
    pub ms_without: f64,
    /// The same with it.
    pub ms_with: f64,
    /// The bytes that it wrote to the log without the index: the least of all times.
    pub wal_bytes_without: Option<u64>,
    /// The same with it.
    pub wal_bytes_with: Option<u64>,
}

/// What an experiment says of the cost of each new index, by its name.
pub fn write_costs(
    trials: &[WriteTrial],
    experiments: &[Value],
    repeats: usize,
) -> BTreeMap<String, Result<WriteCost, String>> {
    let mut costs = BTreeMap::new();
    for (place, trial) in trials.iter().enumerate() {
        let experiment = experiments.get(place).unwrap_or(&Value::Null);
        let seen = experiment.get("statements").and_then(Value::as_array);
        let seen = seen.map(Vec::as_slice).unwrap_or_default();
        let error = seen.iter().find_map(|it| it.get("error")?.as_str());
        // One write to warm up, then rounds of writes with a drop between each two.
        let round = |nth: usize| -> Vec<Execution> {
            let from = 1 + nth * (repeats + 1);
            let answers = seen.iter().skip(from).take(repeats);
            answers.filter_map(|it| Execution::of_answer(it.get("returned")?.get(0)?)).collect()
        };
        for (nth, index) in trial.indexes.iter().enumerate() {
            let cost = cost_of(&round(nth), &round(nth + 1))
                .ok_or_else(|| error.unwrap_or("the experiment did not come to an end").to_owned());
            costs.insert(index.clone(), cost);
        }
    }
    costs
}

fn cost_of(with: &[Execution], without: &[Execution]) -> Option<WriteCost> {
    let ms = |round: &[Execution]| median(round.iter().map(|it| it.ms));
    // What a checkpoint adds to the log belongs to nobody; the least has the least of it.
    let wal = |round: &[Execution]| round.iter().filter_map(|it| it.wal_bytes).min();
    Some(WriteCost {
        rows: with.iter().map(|it| it.rows).fold(0.0, f64::max),
        ms_without: rounded(ms(without)?),
        ms_with: rounded(ms(with)?),
        wal_bytes_without: wal(without),
        wal_bytes_with: wal(with),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn writes_are_compared_round_by_round() {
        let write = |ms: f64, wal: u64| {
            let plan = json!({"Node Type": "ModifyTable", "Actual Rows": 0, "WAL Bytes": wal,
                "Plans": [{"Actual Rows": 100}]});
            json!({"returned": [{"QUERY PLAN": [{"Plan": plan, "Execution Time": ms}]}]})
        };
        let dropped = json!({"returned": []});
        let statements = [
            write(99.0, 99),
            write(3.0, 900),
            write(5.0, 700),
            dropped.clone(),
            write(2.0, 500),
            write(2.0, 400),
            dropped,
            write(1.0, 100),
            write(1.0, 100),
        ];
        let trial = WriteTrial {
            indexes: vec!["public.i".into(), "public.j".into()],
            ..WriteTrial::default()
        };
        let costs =
            write_costs(std::slice::from_ref(&trial), &[json!({"statements": statements})], 2);
        let cost = costs["public.i"].clone().unwrap();
        assert_eq!((cost.rows, cost.ms_with, cost.ms_without), (100.0, 4.0, 2.0));
        assert_eq!((cost.wal_bytes_with, cost.wal_bytes_without), (Some(700), Some(400)));
        assert!((costs["public.j"].clone().unwrap().ms_without - 1.0).abs() < f64::EPSILON);
        let failed = json!({"statements": [{"error": "no permission"}]});
        let costs = write_costs(&[trial], &[failed], 2);
        assert_eq!(costs["public.i"], Err("no permission".to_owned()));
    }
}
