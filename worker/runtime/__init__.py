"""The RQ side: takes jobs, has them judged, ends each with its verdict, and shows how it is doing.

`service` (the whole process) → `batch_worker` (the loop) → `doorbell`, `claims` (taking) → `batches`, `stable`,
`wire` → `horse` (the child with the model) → `ends`, `ending_worker` (ending); `recovery` beats, `commands` obeys;
`deliver` posts verdicts. Never a pixel or a score in the worker's own process.
"""
