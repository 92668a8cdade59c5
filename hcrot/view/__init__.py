"""``hcrot view``: a local page where a network is alive. One draws with it, looks inside, trains, and breaks it.

    server      the addresses, who may call, and the one websocket of each tab
    worker      one thread that computes, a queue before it, and an outbox for each tab: a slow tab never holds the thread up
    messages    what the page asks for, read value by value
    networks    the digits that come with hcrot, and those of the runs folder
    draw, edit  from noise; from a scribble, around a hole, between two
    inside      the picture of the U-Net, activations, attention, gradients, timing
    runs        training runs: start, follow, stop, resume
    defects     backwards with a known mistake; breaking: a training with one beside a right one

The page itself is in ``page/``: HTML, CSS and JavaScript modules without a framework, which fetch nothing from elsewhere.
"""

__all__: list[str] = []
