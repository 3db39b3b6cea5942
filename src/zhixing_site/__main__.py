"""python -m zhixing_site. Every process of a run imports this file again, so it imports nothing by itself."""

if __name__ == "__main__":
    import sys

    from zhixing_site.cli import main

    sys.exit(main())
