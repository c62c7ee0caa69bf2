"""RANK. What a user's own training loop gets, so that it resumes exactly, reads every row once and loses little.

    def my_loop(context):
        model = context.model()                       # of model=, or of the configuration; its start is seeded
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=context.total_steps)
        context.attach(model, optimizer, schedule=schedule)   # rank 0's weights for all; the saved state when resumed
        for epoch in context.epochs():                # what is left of them
            for batch in context.batches():           # what is left of the epoch, this rank's share
                loss = my_loss(model(batch.inputs), batch.label)      # a SUM over the rows
                context.backward(loss, weight=batch.rows)             # the gradient of the mean over all ranks' rows
                context.step()                                        # instead of optimizer.step()
                schedule.step()
            context.report({"loss": ...})             # chooses the best epoch by training.best_by, default the last

    pipeline.train(dataset, model=MyNet, loop=my_loop, epochs=5)

The context steps the optimizer: ``optimizer.step()`` in a loop would train each rank apart, and is refused.
All ranks call the same in the same order; ``break`` out of batches or epochs where all of them do. Checkpoints and
stops come between two batches. What the loop keeps in variables of its own starts anew when a run is resumed:
what has to survive is an attached object. A loop that does something else for longer than ``cluster.deadlines.step``
calls `TrainingContext.alive` now and then; iterating any loader of the context does by itself.
"""

from pipeline.training.own_loop.context import TrainingContext as TrainingContext
