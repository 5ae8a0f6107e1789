"""What people look at: one HTML file for a run or a search, and its figures.

page          facts to HTML, numbers marked with the place they were read from
run           the facts of a run's folder
search        the facts of a search's folder
charts        drawings of a run, by matplotlib
search_charts drawings of a search
drawing       colours and SVG that follow the page's light and dark theme
"""

from rankwise.reporting.page import report

__all__ = ["report"]
