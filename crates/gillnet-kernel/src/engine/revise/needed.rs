//! What of the root's columns a plan needs for its revisions.

use crate::expr::collect_columns;

use crate::engine::plan::{FeaturePlan, PatternFeaturePlan, Plan};

/// Names of the root's columns that tell whose rows a lookup or a pattern concerns.
pub fn looked_up_by(plan: &Plan) -> impl Iterator<Item = Option<&str>> {
    plan.features.iter().filter_map(|feature| match feature {
        FeaturePlan::Aggregate { stream, key, at, .. } if *stream != plan.root => Some(key.as_ref().and(at.as_deref())),
        FeaturePlan::Pattern(PatternFeaturePlan { stream, key, at, .. }) => {
            Some(if *stream == plan.root { key.as_deref() } else { key.as_ref().and(at.as_deref()) })
        }
        _ => None,
    })
}

/// Columns of the root that rows are identified, routed, judged and computed by.
pub fn needed_columns(plan: &Plan, id: &str, event_time: &str) -> Vec<String> {
    let mut names = vec![id.to_owned(), event_time.to_owned()];
    for feature in &plan.features {
        match feature {
            FeaturePlan::Aggregate { stream, key, at, .. } => {
                names.extend(at.clone().or(key.clone().filter(|_| *stream == plan.root)));
            }
            FeaturePlan::Expression { expression, .. } => collect_columns(expression, &mut names),
            FeaturePlan::Pattern(PatternFeaturePlan { stream, key, at, .. }) => {
                names.extend(at.clone().or(key.clone().filter(|_| *stream == plan.root)));
            }
            FeaturePlan::Baseline(_) => {}
        }
    }
    names.extend(plan.sessions.iter().map(|sessions| sessions.key.clone()));
    plan.policy.iter().for_each(|rule| collect_columns(&rule.when, &mut names));
    names
}
