"""Row expressions, nulls above all: arithmetic passes null on, ``&`` and ``|`` decide where they can, a case takes it as false."""

import gillnet as gn

col = gn.col
payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        id=gn.String(),
        ts=gn.Timestamp("rfc3339"),
        card=gn.String(),
        amount=gn.Decimal(2),
        x=gn.Float(nullable=True),
        n=gn.Integer(nullable=True),
        flag=gn.Boolean(nullable=True),
        text=gn.String(nullable=True),
    ),
    id="id",
    event_time="ts",
)

pipeline = gn.Pipeline(
    gn.Features(
        payments,
        # Written before what it needs: the order of features is the plan's to find.
        doubled=col("ratio") * 2,
        ratio=col("x") / col("n"),
        total=col("amount") * 3 + col("n"),
        whole=col("n") // 2,
        rest=col("n") % 3,
        negative=-col("amount"),
        both=col("flag") & (col("n") > 0),
        either=col("flag") | (col("n") > 0),
        unknown=(col("n") > 0).is_null(),
        filled=col("n").fill_null(-1),
        chosen=gn.when(col("flag")).then(1).when(col("n") > 10).then(col("n")).otherwise(0),
        no_default=gn.when(col("flag")).then(gn.lit("yes")),
        first_known=gn.coalesce("n", col("text").str.len_chars(), 99),
        among=col("text").is_in(["a", "b"]),
        between=col("amount").is_between(1, 2.5),
        clipped=col("n").clip(0, 10),
        largest=gn.max_horizontal("n", "x", 2),
        log=col("x").log(),
        rounded=col("amount").round(1),
        cast=col("text").cast("int64"),
        upper=col("text").str.to_uppercase().str.head(3),
        code=gn.concat_str("card", "n", separator="-"),
        hour=col("ts").dt.hour(),
        weekday=col("ts").dt.weekday(),
        night=~col("ts").dt.hour().is_between(6, 21),
        epoch=col("ts").dt.epoch("s"),
    )
)
