"""The cycle behind OpenAI's chat API: `quickstudy serve`. Read `engine.py` first.

    server -> app -> gate       uvicorn and the end; routes; ids, keys, sizes and logs of requests
    chat -> talk                answers and streams; one request between its thread and its client
    wire -> asked               bodies that come in; checked against what is served and allowed
    scheduler -> baton          places, threads, cancellation; who computes when
    engine -> words, replies    one request answered; what can be told already; bodies that go out

HTTP stays in the first two lines, torch and the model in `engine`.
"""
