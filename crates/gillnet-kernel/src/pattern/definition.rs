//! A pattern, compiled against its stream's schema.

use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{json, Value as Json};

use super::condition::{Input, RunTest};
use super::plan::{PatternPlan, Skip, StepPlan};
use crate::error::{KernelError, Result};
use crate::expr::collect_columns;
use crate::expr::Expression;
use crate::keyed::row::HEADER;
use crate::keyed::window::FURTHEST_US;

/// Tests of a pattern, steps with all alternatives, and words of a mask: each fits a machine word.
pub const MOST_TESTS: usize = 64;

/// The step of a run that has taken nothing yet.
pub const BEFORE_FIRST: usize = usize::MAX;

/// A compiled pattern.
pub struct Definition {
    pub steps: Vec<Step>,
    /// Names of alternatives, over all steps.
    pub names: Vec<String>,
    pub tests: Vec<Test>,
    pub guards: Vec<usize>,
    /// The test that must not hold of an event within `tail_us` after the last.
    pub absent: Option<usize>,
    pub within_us: i64,
    pub tail_us: i64,
    pub skip: Skip,
    /// Some step is strict: then every event of the key counts, not only those that fit something.
    pub strict: bool,
    /// Conditions over an event alone, a bit of its mask each.
    pub selections: Vec<Expression>,
    /// Conditions over an event and what a run remembers.
    pub run_tests: Vec<RunTest>,
    /// Columns that events keep: the first is the id.
    pub lanes: Vec<Lane>,
    pub references: Vec<Reference>,
    /// Tests of the steps that a run can begin with.
    pub starts: u64,
    moves_from_start: Vec<Move>,
}

/// A step and the ways on from it, the preferred one first.
pub struct Step {
    /// (name, test)
    pub alternatives: Vec<(usize, usize)>,
    pub least: u32,
    pub most: u32,
    pub greedy: bool,
    pub strict: bool,
    pub moves: Vec<Move>,
    /// Tests that an event is put to, while a run is at this step.
    pub asks: u64,
}

/// A way on to a later step, and the guards that it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub to: usize,
    pub guards: u32,
}

/// A condition in two parts: of the event alone, and of the event and the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    pub bit: Option<u8>,
    pub of_run: Option<usize>,
}

/// A column that events keep.
pub struct Lane {
    pub column: usize,
    pub data_type: DataType,
}

/// Which earlier event of a match a condition reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    First(usize),
    Last(usize),
    Previous,
}

/// A value of an earlier event that runs remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    pub place: Place,
    pub lane: usize,
}

impl Definition {
    /// Compile a pattern over a stream of `schema`, whose events are named by column `id`.
    ///
    /// # Errors
    /// [`KernelError::Plan`] where a condition does not fit the schema, or there is too much of something.
    pub fn compile(plan: &PatternPlan, schema: &Schema, id: &str) -> Result<Self> {
        check(plan)?;
        let mut builder = Builder::new(schema);
        builder.lane(schema.index_of(id)?)?;
        builder.names = plan.steps.iter().flat_map(|s| s.alternatives.iter().map(|a| a.name.clone())).collect();
        let (mut steps, mut guards_before) = (Vec::new(), Vec::new());
        let mut name = 0;
        for step in &plan.steps {
            let first = builder.guards.len();
            for guard in &step.unless {
                let test = builder.test(Some(guard))?;
                builder.guards.push(test);
            }
            guards_before.push((first..builder.guards.len()).fold(0u32, |mask, guard| mask | 1 << guard));
            let mut alternatives = Vec::new();
            for alternative in &step.alternatives {
                alternatives.push((name, builder.test(alternative.condition.as_ref())?));
                name += 1;
            }
            steps.push(compiled_step(step, alternatives));
        }
        let absent = plan.absent.as_ref().map(|absent| builder.test(Some(&absent.condition))).transpose()?;
        let words = [builder.selections.len() + builder.lanes.len(), builder.tests.len(), builder.references.len()];
        if words.iter().any(|&bits| bits > MOST_TESTS) {
            return Err(refused(&format!("it has more than {MOST_TESTS} conditions and columns")));
        }
        let moves_from_start = moves(&plan.steps, &guards_before, 0);
        for number in 0..steps.len() {
            steps[number].moves = moves(&plan.steps, &guards_before, number + 1);
            steps[number].asks = asks(&steps, number, &builder.guards);
        }
        let starts = moves_from_start.iter().flat_map(|way| &steps[way.to].alternatives);
        Ok(Self {
            starts: starts.fold(0, |mask, &(_, test)| mask | 1 << test),
            strict: plan.steps.iter().any(|step| step.strict),
            within_us: plan.within_us,
            tail_us: plan.absent.as_ref().map_or(0, |absent| absent.for_us),
            skip: plan.skip,
            steps,
            absent,
            moves_from_start,
            names: builder.names,
            tests: builder.tests,
            guards: builder.guards,
            selections: builder.selections,
            run_tests: builder.run_tests,
            lanes: builder.lanes,
            references: builder.references,
        })
    }

    /// Words of one event.
    pub fn stride(&self) -> usize {
        HEADER + self.lanes.len()
    }

    /// How far back from a place in the order runs may have started that are alive there.
    pub fn lookback_us(&self) -> i64 {
        self.within_us + self.tail_us
    }

    /// The ways on from a step, the preferred one first.
    #[inline]
    pub fn moves_from(&self, step: usize) -> &[Move] {
        if step == BEFORE_FIRST {
            &self.moves_from_start
        } else {
            &self.steps[step].moves
        }
    }

    /// Tests that hold of an event by itself; and those that a run must be asked for.
    #[inline]
    pub fn judge(&self, mask: u64) -> (u64, u64) {
        let (mut hold, mut open) = (0, 0);
        for (number, test) in self.tests.iter().enumerate() {
            if test.bit.is_none_or(|bit| mask >> bit & 1 == 1) {
                if test.of_run.is_none() {
                    hold |= 1 << number;
                } else {
                    open |= 1 << number;
                }
            }
        }
        (hold, open)
    }

    /// The mask's bit that says that a lane is not null.
    #[inline]
    pub fn valid_bit(&self, lane: usize) -> u8 {
        (self.selections.len() + lane) as u8
    }
}

fn compiled_step(plan: &StepPlan, alternatives: Vec<(usize, usize)>) -> Step {
    Step {
        alternatives,
        least: plan.least,
        most: plan.most.unwrap_or(u32::MAX),
        greedy: plan.greedy,
        strict: plan.strict,
        moves: Vec::new(),
        asks: 0,
    }
}

/// Where a run may go from before step `from`: to it, or past it while it is optional; the preferred way first.
fn moves(steps: &[StepPlan], guards_before: &[u32], from: usize) -> Vec<Move> {
    let Some(step) = steps.get(from) else { return Vec::new() };
    let here = Move { to: from, guards: guards_before[from] };
    if !step.optional {
        return vec![here];
    }
    let beyond = moves(steps, guards_before, from + 1)
        .into_iter()
        .map(|way| Move { guards: way.guards | guards_before[from], ..way });
    if step.greedy {
        std::iter::once(here).chain(beyond).collect()
    } else {
        beyond.chain(std::iter::once(here)).collect()
    }
}

fn asks(steps: &[Step], number: usize, guards: &[usize]) -> u64 {
    let reached = steps[number].moves.iter().map(|way| way.to).chain([number]);
    let tests = reached.flat_map(|step| steps[step].alternatives.iter().map(|&(_, test)| test));
    tests.chain(guards.iter().copied()).fold(0, |mask, test| mask | 1 << test)
}

fn check(plan: &PatternPlan) -> Result<()> {
    let names = plan.steps.iter().map(|step| step.alternatives.len()).sum::<usize>();
    let guards = plan.steps.iter().map(|step| step.unless.len()).sum::<usize>();
    if names == 0 || names > MOST_TESTS || guards > 32 {
        return Err(refused(&format!("it has {names} steps and {guards} guards; 1 to {MOST_TESTS}, and up to 32")));
    }
    let last = &plan.steps[plan.steps.len() - 1];
    if plan.steps.iter().any(|s| s.alternatives.is_empty() || s.least == 0 || s.most.is_some_and(|most| most < s.least))
    {
        return Err(refused("a step takes at least one event, and no fewer than its least number"));
    }
    if last.optional || last.greedy {
        return Err(refused("its last step is optional or greedy, so that a match would never be complete"));
    }
    let tail = plan.absent.as_ref().map_or(1, |absent| absent.for_us);
    if !(1..=FURTHEST_US).contains(&plan.within_us) || !(1..=FURTHEST_US).contains(&tail) {
        return Err(refused("its times are not above 0"));
    }
    Ok(())
}

fn refused(what: &str) -> KernelError {
    KernelError::Plan(format!("pattern: {what}"))
}

struct Builder<'a> {
    schema: &'a Schema,
    names: Vec<String>,
    tests: Vec<Test>,
    guards: Vec<usize>,
    selections: Vec<Expression>,
    selection_sources: Vec<Json>,
    run_tests: Vec<RunTest>,
    lanes: Vec<Lane>,
    references: Vec<Reference>,
}

impl<'a> Builder<'a> {
    fn new(schema: &'a Schema) -> Self {
        Self {
            schema,
            names: Vec::new(),
            tests: Vec::new(),
            guards: Vec::new(),
            selections: Vec::new(),
            selection_sources: Vec::new(),
            run_tests: Vec::new(),
            lanes: Vec::new(),
            references: Vec::new(),
        }
    }

    /// A condition: what it asks of the event alone is one bit of the event's mask.
    fn test(&mut self, condition: Option<&Json>) -> Result<usize> {
        let (mut alone, mut of_run) = (Vec::new(), Vec::new());
        for part in condition.map(conjuncts).unwrap_or_default() {
            let mut columns = Vec::new();
            collect_columns(part, &mut columns);
            let own = columns.iter().all(|name| self.schema.index_of(name).is_ok());
            if own { &mut alone } else { &mut of_run }.push(part.clone());
        }
        let bit = joined(alone).map(|json| self.selection(json)).transpose()?;
        let of_run = joined(of_run).map(|json| self.run_test(&json)).transpose()?;
        self.tests.push(Test { bit, of_run });
        Ok(self.tests.len() - 1)
    }

    fn selection(&mut self, json: Json) -> Result<u8> {
        if let Some(found) = self.selection_sources.iter().position(|other| *other == json) {
            return Ok(found as u8);
        }
        self.selections.push(condition(&json, self.schema)?);
        self.selection_sources.push(json);
        Ok(self.selections.len() as u8 - 1)
    }

    fn run_test(&mut self, json: &Json) -> Result<usize> {
        let mut columns = Vec::new();
        collect_columns(json, &mut columns);
        columns.sort();
        columns.dedup();
        let (mut fields, mut inputs) = (Vec::new(), Vec::new());
        for name in columns {
            let (input, data_type) = match self.schema.index_of(&name) {
                Ok(column) => (Input::Event(self.lane(column)?), self.schema.field(column).data_type()),
                Err(_) => {
                    let (place, column) = self.resolve(&name)?;
                    let reference = Reference { place, lane: self.lane(column)? };
                    (Input::Earlier(self.reference(reference)), self.schema.field(column).data_type())
                }
            };
            inputs.push((input, data_type.clone()));
            fields.push(Field::new(name, data_type.clone(), true));
        }
        let expression = condition(json, &Schema::new(fields))?;
        self.run_tests.push(RunTest { expression, inputs });
        Ok(self.run_tests.len() - 1)
    }

    /// `previous.column`, `step.first.column` or `step.last.column`.
    fn resolve(&self, name: &str) -> Result<(Place, usize)> {
        let unknown = || KernelError::Plan(format!("pattern: unknown column or earlier event {name:?}"));
        let column = |column: &str| self.schema.index_of(column).map_err(|_| unknown());
        if let Some(of_previous) = name.strip_prefix("previous.") {
            return Ok((Place::Previous, column(of_previous)?));
        }
        let mut parts = name.splitn(3, '.');
        let (Some(step), Some(which), Some(of_step)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unknown());
        };
        let step = self.names.iter().position(|other| other == step).ok_or_else(unknown)?;
        match which {
            "first" => Ok((Place::First(step), column(of_step)?)),
            "last" => Ok((Place::Last(step), column(of_step)?)),
            _ => Err(unknown()),
        }
    }

    fn reference(&mut self, reference: Reference) -> usize {
        match self.references.iter().position(|other| *other == reference) {
            Some(found) => found,
            None => {
                self.references.push(reference);
                self.references.len() - 1
            }
        }
    }

    fn lane(&mut self, column: usize) -> Result<usize> {
        if let Some(found) = self.lanes.iter().position(|lane| lane.column == column) {
            return Ok(found);
        }
        let data_type = self.schema.field(column).data_type().clone();
        self.lanes.push(Lane { column, data_type });
        Ok(self.lanes.len() - 1)
    }
}

fn condition(json: &Json, schema: &Schema) -> Result<Expression> {
    let expression = Expression::compile(json, schema)?;
    if *expression.data_type() != DataType::Boolean {
        return Err(refused("a condition must be a boolean expression"));
    }
    Ok(expression)
}

/// The parts of which all must hold.
fn conjuncts(json: &Json) -> Vec<&Json> {
    match (json.get("call").and_then(Json::as_str), json.get("args").and_then(Json::as_array)) {
        (Some("and"), Some(parts)) => parts.iter().flat_map(conjuncts).collect(),
        _ => vec![json],
    }
}

fn joined(mut parts: Vec<Json>) -> Option<Json> {
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(json!({ "call": "and", "args": parts })),
    }
}
