//! Random statements, and back.

use lakeops::schema::compare;
use sqlx::AssertSqlSafe;

use super::{assert_both_ways, copy, rich, structure};
use crate::harness::{connect, execute, postgres};

/// A small generator of numbers, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count
    }
}

#[tokio::test]
async fn random_statements_are_undone_by_what_is_written_for_them() {
    let base = postgres().await.fresh_database("structure_random").await;
    execute(&base, &[&rich::schema()]).await;
    let statements = rich::mutations();
    for seed in 0..12_u64 {
        let before = copy(&base, &format!("before{seed}")).await;
        let after = copy(&base, &format!("after{seed}")).await;
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
        let mut done = Vec::new();
        let mut connection = connect(&after).await;
        for _ in 0..8 {
            let n = (31 + dice.below(60)).to_string();
            let sql = statements[dice.below(statements.len())].replace("{n}", &n);
            // What an earlier one has removed can no longer be changed.
            if sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut connection).await.is_ok() {
                done.push(sql);
            }
        }
        drop(connection);
        println!("seed {seed}:\n  {}", done.join("\n  "));
        let diff = compare(&structure(&before).await, &structure(&after).await);
        assert!(done.is_empty() || !diff.is_empty(), "nothing differs");
        assert_both_ways(&before, &after).await;
    }
}
