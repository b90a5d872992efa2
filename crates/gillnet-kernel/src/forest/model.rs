//! XGBoost's JSON model schema → trees whose indices have been checked.
//!
//! Numbers are read from their text straight into `f32`: XGBoost writes the shortest text that reads back to the same
//! `f32`, and a detour through `f64` could round twice.

use serde::de::{Deserializer, Error as _};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{KernelError, Result};

/// Deeper trees are refused; XGBoost's own default is 6.
const MAX_DEPTH: u32 = 64;
/// XGBoost keeps the base score of logistic objectives this far from 0 and 1 before it takes the logit.
const BASE_SCORE_MARGIN: f32 = 1e-6;

/// What the sum of the leaves means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// `binary:logistic`
    BinaryLogistic,
    /// `reg:logistic`
    RegLogistic,
    /// `reg:squarederror`
    SquaredError,
}

impl Objective {
    const ALL: [Self; 3] = [Self::BinaryLogistic, Self::RegLogistic, Self::SquaredError];

    /// XGBoost's name of the objective.
    pub fn name(self) -> &'static str {
        match self {
            Self::BinaryLogistic => "binary:logistic",
            Self::RegLogistic => "reg:logistic",
            Self::SquaredError => "reg:squarederror",
        }
    }

    fn is_logistic(self) -> bool {
        self != Self::SquaredError
    }

    fn base_margin(self, base_score: f32) -> f32 {
        if self.is_logistic() {
            let probability = base_score.clamp(BASE_SCORE_MARGIN, 1.0 - BASE_SCORE_MARGIN);
            -(1.0 / probability - 1.0_f32).ln()
        } else {
            base_score
        }
    }

    /// Turn margins into scores.
    pub fn transform(self, margins: &mut [f32]) {
        if self.is_logistic() {
            margins.iter_mut().for_each(|margin| *margin = sigmoid(*margin));
        }
    }
}

/// XGBoost's sigmoid: the exponent is bounded so that `expf` stays finite.
fn sigmoid(margin: f32) -> f32 {
    // C++ std::min(-x, 88.7) keeps its first argument when x is NaN; f32::min would drop it.
    let exponent = if 88.7 < -margin { 88.7 } else { -margin };
    1.0 / (exponent.exp() + 1.0 + 1e-16)
}

/// A split: `x < threshold` goes left, a missing x by default.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    pub feature: usize,
    pub threshold: f32,
    pub default_left: bool,
    pub left: usize,
    pub right: usize,
}

/// A node: a split, or a leaf with a value. `cover` is the sum of the Hessians that reached it in training.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub split: Option<Split>,
    pub value: f32,
    pub cover: f32,
}

/// A tree with its root at 0; parents stand before their children.
#[derive(Debug)]
pub struct Tree {
    pub nodes: Vec<Node>,
    depth: u32,
}

impl Tree {
    /// Splits on the longest path.
    pub fn depth(&self) -> u32 {
        self.depth
    }
}

/// A model that was read and found to be of a supported kind.
pub struct Model {
    pub objective: Objective,
    pub base_margin: f32,
    pub trees: Vec<Tree>,
}

/// Read a model; see [`super::Forest::from_json`].
pub fn parse(json: &[u8], feature_names: &[String], rounds: Option<usize>) -> Result<Model> {
    let document: Document = serde_json::from_slice(json)
        .map_err(|error| plan(format!("this is not a tree model in XGBoost's JSON schema: {error}")))?;
    let learner = document.learner;
    check_kind(&learner)?;
    let objective = Objective::ALL
        .into_iter()
        .find(|objective| objective.name() == learner.objective.name)
        .ok_or_else(|| plan(format!("the objective '{}' is not evaluated here", learner.objective.name)))?;
    check_features(&learner, feature_names)?;
    let base_score = parse_base_score(&learner.learner_model_param.base_score)?;
    let booster = learner.gradient_booster.model.expect("check_kind has refused boosters without trees");
    let mut trees = Vec::with_capacity(booster.trees.len());
    for (index, tree) in booster.trees.iter().take(tree_limit(&booster, rounds)?).enumerate() {
        trees.push(tree.build(feature_names.len()).map_err(|problem| plan(format!("tree {index} {problem}")))?);
    }
    Ok(Model { objective, base_margin: objective.base_margin(base_score), trees })
}

fn plan(message: String) -> KernelError {
    KernelError::Plan(format!("forest: {message}"))
}

/// Refuse by name what is not held to XGBoost's bits here.
fn check_kind(learner: &Learner) -> Result<()> {
    let booster = &learner.gradient_booster;
    if booster.name != "gbtree" {
        return Err(plan(format!("the booster '{}' is not evaluated here, only 'gbtree' is", booster.name)));
    }
    let Some(model) = &booster.model else {
        return Err(plan("the booster holds no trees".into()));
    };
    let parameters = &learner.learner_model_param;
    for (what, text) in [("classes", &parameters.num_class), ("targets", &parameters.num_target)] {
        if text.as_deref().is_some_and(|text| text.parse::<u64>().is_ok_and(|count| count > 1)) {
            return Err(plan(format!("models of several {what} are not evaluated here")));
        }
    }
    if model.tree_info.iter().any(|group| *group != 0) {
        return Err(plan("models of several output groups are not evaluated here".into()));
    }
    if model.cats.as_ref().is_some_and(|cats| !cats.enc.is_empty()) {
        return Err(plan("categorical features are not evaluated here".into()));
    }
    Ok(())
}

fn check_features(learner: &Learner, feature_names: &[String]) -> Result<()> {
    let width: usize = learner.learner_model_param.num_feature.parse().unwrap_or(0);
    if width == 0 || width != feature_names.len() {
        return Err(plan(format!("the model takes {width} features, but {} are named", feature_names.len())));
    }
    let own = &learner.feature_names;
    if let Some((theirs, given)) = own.iter().zip(feature_names).find(|(theirs, given)| theirs != given) {
        return Err(plan(format!("the model's feature '{theirs}' stands where '{given}' is given")));
    }
    Ok(())
}

/// `5E-1` up to XGBoost 3.0, `[5E-1]` since 3.1.
fn parse_base_score(text: &str) -> Result<f32> {
    let number = text.trim_start_matches('[').trim_end_matches(']');
    number
        .parse()
        .ok()
        .filter(|score: &f32| score.is_finite())
        .ok_or_else(|| plan(format!("the base score '{text}' is not one finite number")))
}

fn tree_limit(booster: &BoosterModel, rounds: Option<usize>) -> Result<usize> {
    let Some(rounds) = rounds else { return Ok(booster.trees.len()) };
    let per_round: usize = booster
        .gbtree_model_param
        .num_parallel_tree
        .as_deref()
        .map_or(Some(1), |text| text.parse().ok())
        .ok_or_else(|| plan("num_parallel_tree is not a number".into()))?;
    let trees = rounds.saturating_mul(per_round.max(1));
    if trees == 0 || trees > booster.trees.len() {
        return Err(plan(format!("{rounds} rounds are asked of a model of {} trees", booster.trees.len())));
    }
    Ok(trees)
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    learner: Learner<'a>,
}

#[derive(Deserialize)]
struct Learner<'a> {
    #[serde(default)]
    feature_names: Vec<String>,
    #[serde(borrow)]
    gradient_booster: Booster<'a>,
    learner_model_param: LearnerParameters,
    objective: ObjectiveName,
}

#[derive(Deserialize)]
struct ObjectiveName {
    name: String,
}

#[derive(Deserialize)]
struct LearnerParameters {
    base_score: String,
    num_class: Option<String>,
    num_target: Option<String>,
    num_feature: String,
}

#[derive(Deserialize)]
struct Booster<'a> {
    name: String,
    #[serde(borrow)]
    model: Option<BoosterModel<'a>>,
}

#[derive(Deserialize)]
struct BoosterModel<'a> {
    #[serde(default)]
    gbtree_model_param: TreeParameters,
    #[serde(default)]
    tree_info: Vec<i32>,
    cats: Option<Categories<'a>>,
    #[serde(borrow, default)]
    trees: Vec<RawTree<'a>>,
}

#[derive(Deserialize, Default)]
struct TreeParameters {
    num_parallel_tree: Option<String>,
}

#[derive(Deserialize)]
struct Categories<'a> {
    #[serde(borrow, default)]
    enc: Vec<&'a RawValue>,
}

/// A number read from its own text, correctly rounded.
struct Number(f32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        let number: f32 = raw.get().parse().map_err(|_| D::Error::custom(format!("{} is not a number", raw.get())))?;
        if number.is_finite() {
            Ok(Self(number))
        } else {
            Err(D::Error::custom(format!("{} is outside the range of a 32-bit float", raw.get())))
        }
    }
}

/// `true` and `false` in XGBoost 1.x, 1 and 0 since.
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match <&RawValue>::deserialize(deserializer)?.get() {
            "1" | "true" => Ok(Self(true)),
            "0" | "false" => Ok(Self(false)),
            other => Err(D::Error::custom(format!("{other} is not a flag"))),
        }
    }
}

#[derive(Deserialize)]
struct RawTree<'a> {
    #[serde(default)]
    split_type: Vec<i32>,
    #[serde(borrow, default)]
    categories: Vec<&'a RawValue>,
    left_children: Vec<i32>,
    right_children: Vec<i32>,
    split_indices: Vec<usize>,
    split_conditions: Vec<Number>,
    default_left: Vec<Flag>,
    sum_hessian: Vec<Number>,
    tree_param: RawTreeParameters,
}

#[derive(Deserialize)]
struct RawTreeParameters {
    size_leaf_vector: Option<String>,
}

impl RawTree<'_> {
    /// Copy the reachable nodes, parents first; the error continues the sentence "tree 7 …".
    fn build(&self, width: usize) -> std::result::Result<Tree, String> {
        self.check()?;
        let mut nodes = vec![self.node(0)];
        let mut depth = 0;
        let mut waiting = vec![(0_usize, 0_usize, 0_u32)];
        while let Some((from, to, level)) = waiting.pop() {
            depth = depth.max(level);
            if self.left_children[from] < 0 {
                continue;
            }
            if level == MAX_DEPTH {
                return Err(format!("is deeper than {MAX_DEPTH} splits"));
            }
            let split = self.split(from, width, nodes.len())?;
            for child in [self.left_children[from], self.right_children[from]] {
                let child = usize::try_from(child).ok().filter(|child| *child < self.left_children.len());
                let child = child.ok_or_else(|| format!("has a child of node {from} that does not exist"))?;
                waiting.push((child, nodes.len(), level + 1));
                nodes.push(self.node(child));
            }
            nodes[to] = Node { split: Some(split), value: 0.0, ..nodes[to] };
            if nodes.len() > self.left_children.len() {
                return Err("is not a tree: a node has two parents".into());
            }
        }
        Ok(Tree { nodes, depth })
    }

    fn check(&self) -> std::result::Result<(), String> {
        let count = self.left_children.len();
        let lengths = [
            self.right_children.len(),
            self.split_indices.len(),
            self.split_conditions.len(),
            self.default_left.len(),
            self.sum_hessian.len(),
        ];
        if count == 0 || lengths.iter().any(|length| *length != count) {
            return Err("is torn: its arrays differ in length".into());
        }
        let leaf_size = self.tree_param.size_leaf_vector.as_deref().unwrap_or("0");
        if leaf_size.parse::<u32>().map_or(true, |size| size > 1) {
            return Err("has leaves with several values, which are not evaluated here".into());
        }
        if !self.categories.is_empty() || self.split_type.iter().any(|kind| *kind != 0) {
            return Err("has categorical splits, which are not evaluated here".into());
        }
        Ok(())
    }

    fn split(&self, node: usize, width: usize, next: usize) -> std::result::Result<Split, String> {
        let feature = self.split_indices[node];
        if feature >= width {
            return Err(format!("splits on feature {feature} of {width}"));
        }
        Ok(Split {
            feature,
            threshold: self.split_conditions[node].0,
            default_left: self.default_left[node].0,
            left: next,
            right: next + 1,
        })
    }

    fn node(&self, node: usize) -> Node {
        Node { split: None, value: self.split_conditions[node].0, cover: self.sum_hessian[node].0 }
    }
}
